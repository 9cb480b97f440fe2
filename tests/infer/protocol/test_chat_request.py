"""Chat requests: messages, tools, and what cannot be asked."""

import pytest

from infer.protocol import RequestError, parse_chat

from .asking import EOT, HELLO, MODEL, TOOL, chat, only_answer
from .served_model import served_model


def test_messages_are_told_in_the_chat_format():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        },
        # As OpenAI's client sends an earlier answer back.
        {"role": "assistant", "content": "Hi<eot>", "refusal": None, "annotations": []},
        {"role": "user", "content": "Bye"},
    ]
    answer = only_answer(chat(messages=messages))
    text = "[system]Be brief.<eot>[user]Hello<eot>[assistant]Hi{}<eot>[user]Bye<eot>[assistant]"
    # A special token that is written in a message is text.
    plain = len(MODEL.tokenizer.encode("<eot>"))
    assert plain > 1
    assert MODEL.tokenizer.decode(answer.prompt) == "<bos>" + text.format("<eot>")
    assert answer.prompt.count(EOT) == 4


def test_a_chat_answer_may_take_the_rest_of_the_context():
    answer = only_answer(chat())
    assert len(answer.prompt) + answer.max_new_tokens == MODEL.max_length
    request = parse_chat({"messages": HELLO}, MODEL, default_seed=0, default_max_tokens=9)
    assert only_answer(request).max_new_tokens == 9


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_are_known(name):
    assert only_answer(chat({name: 7})).max_new_tokens == 7
    assert only_answer(chat(max_tokens=7, max_completion_tokens=7)).max_new_tokens == 7
    with pytest.raises(RequestError, match="differs"):
        chat(max_tokens=7, max_completion_tokens=8)


def test_tools_are_told_of_and_looked_for():
    answer = only_answer(chat(tools=[TOOL]))
    assert '"name": "f"' in MODEL.tokenizer.decode(answer.prompt)
    assert answer.parse_tools and answer.constraint is None
    for choice in ("auto", None):
        assert chat(tools=[TOOL], tool_choice=choice) == chat(tools=[TOOL])
    assert chat(tools=[TOOL], tool_choice="none") == chat()
    assert chat(tools=[]) == chat()
    loose = {**TOOL, "function": {**TOOL["function"], "strict": False}}
    assert chat(tools=[loose]) == chat(tools=[TOOL])


CHAT_REFUSED = {
    "no messages": ({"messages": None}, "messages", "non-empty list"),
    "empty": ({"messages": []}, "messages", "non-empty list"),
    "text": ({"messages": "Hello"}, "messages", "non-empty list"),
    "role": ({"messages": [{"role": "x", "content": ""}]}, "messages[0].role", "'x' is unknown"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content", "only parts of type text",
    ),
    "name": (
        {"messages": [{"role": "user", "content": "x", "name": "me"}]},
        "messages[0].name", "unknown field",
    ),
    "number": ({"messages": [1]}, "messages[0].role", "missing"),
    "long": ({"messages": [{"role": "user", "content": "x" * 500}]}, "messages", "has 519 tokens"),
    "prompt": ({"prompt": "Hello"}, "prompt", "unknown field"),
    "modalities": ({"modalities": ["audio"]}, "modalities", "answers are text"),
    "functions": ({"functions": []}, "functions", "use tools"),
    "tools": ({"tools": "f"}, "tools", "must be a list"),
    "tool": ({"tools": [{"type": "web_search"}]}, "tools[0]", "must be"),
    "tool name": (
        {"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name", "",
    ),
    "tools twice": ({"tools": [TOOL, TOOL]}, "tools", "one name"),
    "strict": (
        {"tools": [{**TOOL, "function": {**TOOL["function"], "strict": True}}]},
        "tools[0].function.strict", "holds only where tool_choice makes the model call",
    ),
    "parallel": (
        {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls", "holds only",
    ),
    "choice": ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "must be"),
    "choice name": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        None, "no tool is named 'g'",
    ),
    "choice without tools": ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
    "tools and grammar": (
        {"tools": [TOOL], "guided_regex": "a"}, "guided_regex", "cannot stand beside tools",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fields, param, message", CHAT_REFUSED.values(), ids=CHAT_REFUSED)
def test_what_a_chat_request_cannot_ask_for(fields, param, message):
    with pytest.raises(RequestError) as caught:
        chat(fields)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert param is None or caught.value.param == param


def test_a_base_model_takes_no_chat():
    with pytest.raises(RequestError, match="base model"):
        chat(model=served_model(template=None))


def test_tools_that_the_template_would_not_show_are_refused():
    with pytest.raises(RequestError, match="tools: this model's chat template does not tell"):
        chat(model=served_model(template="{{ messages[0].content }}"), tools=[TOOL])


def test_a_template_that_refuses_a_dialog_is_an_error_of_the_messages():
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="messages: .*roles must alternate") as caught:
        chat(model=served_model(template=template))
    assert caught.value.param == "messages"
