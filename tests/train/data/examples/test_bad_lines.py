"""Lines that make no example: each is told by its field, and counted by its reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.data.examples.line_fields import parse_line
from train.data.examples.refused_example import RefusedExample

from .lines import assistant, call, definition, maker, system, tool, user

HI = user("Hi")
SEARCH = [call("brave_search", query="x")]


@pytest.fixture(scope="module")
def makers(llama):
    return {kind: maker(llama, kind, chat_format="llama31") for kind in ("dialogs", "pairs")}


def refusal(make, line) -> tuple[str, str]:
    with pytest.raises(RefusedExample) as caught:
        make(line)
    assert "\n" not in str(caught.value)
    return caught.value.reason, str(caught.value)


def test_what_a_dialog_may_be(makers):
    search = assistant("", tool_calls=SEARCH)
    for messages in (
        [HI, assistant("Yes")],
        [system("Be"), HI, assistant("Yes"), HI, assistant("No")],
        [HI, search, tool("1"), tool("2"), assistant("Yes")],
        [HI, search, tool("1"), search],
        [HI, assistant("x", stop_reason="end_of_message"), tool("1"), assistant("Yes")],
        [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), assistant("x")],
    ):
        example = makers["dialogs"]({"messages": messages, "tools": [], "id": 7, "category": "c"})
        assert example.masks.any() and example.num_slots == 0


@pytest.mark.parametrize(
    ("messages", "reason", "complaint"),
    [
        ([HI], "no assistant turn", "messages: the assistant says nothing"),
        ([system("Be"), HI], "no assistant turn", "messages: the assistant says nothing"),
        ([HI, HI, assistant("x")], "role order", r"messages\[1\]: a message of user after one of"),
        ([HI, assistant("x"), assistant("y")], "role order", r"messages\[2\]: .*assistant after"),
        ([assistant("x")], "role order", r"messages\[0\]: .*assistant at the beginning"),
        ([tool("x"), assistant("x")], "role order", r"messages\[0\]: .*tool at the beginning"),
        ([HI, system("Be"), assistant("x")], "role order", r"messages\[1\]: a message of system"),
        ([HI, assistant("x"), tool("1")], "role order", r"messages\[2\]: a tool answers, and"),
        ([HI, assistant("x"), HI], "role order", r"messages\[2\]: the dialog ends with .*user"),
        (
            [HI, assistant("", tool_calls=SEARCH), HI, assistant("x")],
            "role order",
            r"messages\[2\]: a user speaks before the tool",
        ),
        ([HI, assistant("")], "empty answer", r"messages\[1\]: the assistant's message is empty"),
        ([HI, assistant(" \n"), HI, assistant("x")], "empty answer", r"messages\[1\]: "),
        ([HI, {"role": "assistant"}], "messages", r"messages\[1\].content: missing"),
        ([HI, {"role": "gpt", "content": "x"}], "messages", r"messages\[1\].role: 'gpt' is unkn"),
        ([HI, assistant("x", weight=0)], "messages", r"messages\[1\].weight: unknown field"),
        ([HI, assistant("x", refusal="y")], "messages", r"messages\[1\].refusal: unknown field"),
        ([HI, assistant(7)], "messages", r"messages\[1\].content: must be text"),
        ([HI, "x"], "messages", r"messages\[1\].role: missing"),
        ([], "messages", "messages: must be a non-empty list"),
        ("x", "messages", "messages: must be a non-empty list"),
        (
            [
                HI,
                assistant("", tool_calls=[call("f", "a")]),
                tool("1", tool_call_id="b"),
                assistant("x"),
            ],
            "tool calls",
            r"messages\[2\].tool_call_id: no call before it has the id 'b'",
        ),
    ],
)
def test_messages_that_are_no_dialog(makers, messages, reason, complaint):
    found = refusal(makers["dialogs"], {"messages": messages})
    assert found[0] == reason
    pytest.raises(InputError, makers["dialogs"], {"messages": messages}).match(complaint)


@pytest.mark.parametrize(
    ("turns", "reason", "complaint"),
    [
        ([{"from": "bing", "value": "x"}], "messages", r"conversations\[0\].from: 'bing' is no kn"),
        ([{"from": ["gpt"], "value": "x"}], "messages", r"conversations\[0\].from: "),
        ([{"value": "x"}], "messages", r"conversations\[0\].from: None"),
        ([{"from": "human", "value": 7}], "messages", r"conversations\[0\].value: must be text"),
        ([{"from": "human", "text": "x"}], "messages", r"conversations\[0\].text: unknown field"),
        (["x"], "messages", r"conversations\[0\]: must be an object"),
        ({}, "messages", "conversations: must be a non-empty list"),
        ([{"from": "human", "value": "x"}], "no assistant turn", "conversations: the assistant"),
        (
            [
                {"from": "human", "value": "x"},
                {"from": "gpt", "value": "let me see"},
                {"from": "tool", "value": "7"},
                {"from": "gpt", "value": "7"},
            ],
            "tool calls",
            r"conversations\[1\].value: a tool answers it",
        ),
        (
            [{"from": "human", "value": "\ud800"}, {"from": "gpt", "value": "x"}],
            "messages",
            r"conversations\[0\].content: holds half a surrogate",
        ),
    ],
)
def test_conversations_that_are_no_dialog(makers, turns, reason, complaint):
    found = refusal(makers["dialogs"], {"conversations": turns})
    assert found[0] == reason
    pytest.raises(InputError, makers["dialogs"], {"conversations": turns}).match(complaint)


def test_a_call_in_sharegpt_becomes_a_call(makers):
    written = '{"type": "function", "name": "f", "parameters": {"a": 1}}'
    turns = [("human", "x"), ("gpt", written), ("tool", "7"), ("gpt", "7")]
    as_conversation = [{"from": speaker, "value": value} for speaker, value in turns]
    as_messages = [
        user("x"),
        assistant("", tool_calls=[call("f", a=1)]),
        tool("7"),
        assistant("7"),
    ]
    one = makers["dialogs"]({"conversations": as_conversation})
    other = makers["dialogs"]({"messages": as_messages})
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.masks.tolist() == other.masks.tolist()


DIALOG = {"messages": [HI, assistant("x")]}


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({}, "fields", "either messages .* or conversations"),
        ({**DIALOG, "conversations": []}, "fields", "either messages .* or conversations"),
        ({**DIALOG, "source": 1}, "fields", "source: unknown field.*--ignore-fields source"),
        ({**DIALOG, "category": 1}, "fields", "category: must be text"),
        ({**DIALOG, "provenance": "x"}, "fields", "provenance: must be an object"),
        ({**DIALOG, "tools": {}}, "tools", "tools: must be a list"),
        ({**DIALOG, "tools": [{"name": "f"}]}, "tools", r"tools\[0\].name: unknown field"),
        ({**DIALOG, "finish_reason": "length"}, "truncated answer", "^finish_reason: 'length'"),
        (
            {**DIALOG, "provenance": {"finish_reason": "content_filter"}},
            "truncated answer",
            "^provenance.finish_reason: 'content_filter'",
        ),
    ],
)
def test_fields_of_a_line(makers, fields, reason, complaint):
    assert refusal(makers["dialogs"], fields)[0] == reason
    pytest.raises(InputError, makers["dialogs"], fields).match(complaint)


def test_ignored_fields_and_ended_answers_are_taken(llama, makers):
    fields = {**DIALOG, "source": 1, "finish_reason": "stop", "provenance": {"model": "m"}}
    ignoring = maker(llama, "dialogs", chat_format="llama31", ignored=("source",))
    assert ignoring(fields).tokens.tolist() == makers["dialogs"](DIALOG).tokens.tolist()


PAIR = {"messages": [HI], "chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(
    ("changes", "reason", "complaint"),
    [
        ({"chosen": None}, "fields", "^chosen: missing"),
        ({"rejected": None}, "fields", "^rejected: missing"),
        ({"messages": None}, "fields", "^messages: missing"),
        ({"better": "x"}, "fields", "^better: unknown field; known: messages, tools, edited, cho"),
        ({"rejected": "yes"}, "identical answers", "^rejected: is the same as chosen"),
        ({"edited": "no"}, "identical answers", "^rejected: is the same as edited"),
        ({"chosen": assistant("no")}, "identical answers", "^rejected: is the same as chosen"),
        ({"chosen": ""}, "empty answer", "^chosen: the assistant's message is empty"),
        ({"rejected": " \n"}, "empty answer", "^rejected: the assistant's message is empty"),
        ({"edited": " "}, "empty answer", "^edited: the assistant's message is empty"),
        ({"chosen": ["yes"]}, "messages", "^chosen: must be text or an assistant message"),
        ({"chosen": user("yes")}, "messages", "^chosen.role: must be assistant, not 'user'"),
        ({"chosen": {"text": "yes"}}, "messages", "^chosen.text: unknown field"),
        ({"messages": [HI, assistant("x")]}, "role order", r"^messages\[1\]: a prompt ends with"),
        ({"messages": [system("x")]}, "role order", r"^messages\[0\]: a prompt ends with"),
        ({"messages": [HI, HI]}, "role order", r"^messages\[1\]: a message of user after"),
        ({"finish_reason": "length"}, "truncated answer", "^finish_reason: 'length'"),
        (
            {"provenance": {"chosen": {"finish_reason": "length"}}},
            "truncated answer",
            "^provenance.chosen.finish_reason: 'length'",
        ),
    ],
)
def test_lines_that_are_no_preference(makers, changes, reason, complaint):
    assert refusal(makers["pairs"], {**PAIR, **changes})[0] == reason
    pytest.raises(InputError, makers["pairs"], {**PAIR, **changes}).match(complaint)


@pytest.mark.parametrize(
    "line",
    [
        [HI, assistant("I look.", tool_calls=[call("f", a=1)])],  # text beside a call
        [HI, assistant("", tool_calls=[*SEARCH, call("f", a=1)])],  # two kinds
        [HI, assistant("So:", tool_calls=[call("code_interpreter", code="1")])],
        [HI, assistant("", tool_calls=[call("brave_search", q="x")])],  # not its argument
    ],
)
def test_calls_that_llama_31s_format_cannot_express(makers, line):
    reason, message = refusal(makers["dialogs"], {"messages": line})
    assert reason == "tool calls" and ("read back" in message or "takes one argument" in message)


def test_calls_and_tools_that_a_template_leaves_out(chatml):
    make = maker(chatml, "dialogs")
    with_tools = {"messages": [HI, assistant("x")], "tools": [definition("f")]}
    reason, message = refusal(make, with_tools)
    assert reason == "tool calls" and message.startswith("tools: the chat template writes nothing")
    calls = [HI, assistant("x", tool_calls=[call("f", a=1)])]
    reason, message = refusal(make, {"messages": calls})
    assert reason == "tool calls" and message.startswith("messages[1].tool_calls[0]: ")


def test_a_template_that_refuses_a_dialog_is_named(tokenizer, tmp_path):
    for file in tokenizer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    )
    template += "{% endif %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    make = maker(tmp_path, "dialogs")
    assert make({"messages": [HI, assistant("x")]}).masks.any()
    reason, message = refusal(make, {"messages": [system("x"), HI, assistant("x")]})
    assert reason == "chat format" and "chat_template.jinja: refuses this dialog: no sys" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"caf\xe9", "not UTF-8"),
        (b'{"messages": [}', "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b'{"messages": 1, "messages": 2}', "not a JSON object"),
    ],
)
def test_lines_that_are_no_object(text, reason):
    with pytest.raises(RefusedExample) as caught:
        parse_line(text)
    assert caught.value.reason == reason and "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name"]),
            inner | st.sampled_from(["user", "assistant", "tool", "human", "gpt"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)
names = ["messages", "conversations", "chosen", "rejected", "edited", "tools", "provenance"]


@given(st.dictionaries(st.sampled_from(names), json_values, max_size=4))
def test_any_object_is_an_example_or_refused(makers, fields):
    for make in makers.values():
        try:
            make(json.loads(json.dumps(fields)))
        except RefusedExample as error:
            assert error.reason and "\n" not in str(error)
