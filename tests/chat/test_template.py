"""Chat templates against transformers, in the shapes that published checkpoints have."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.chat.messages import Message, ToolCall
from llama_jax.chat.template import TemplateFormat
from llama_jax.errors import InputError

NAMES = ["chatml", "chatml_with_generation", "tools_and_documents", "alternating", "drops_thoughts"]
VARIABLES = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
SPECIAL_TEXTS = ["<|im_start|>", "<|im_end|>", "<|im_end|>\n<|im_start|>system\n", "<|endoftext|>"]

plain_contents = (
    st.lists(
        st.sampled_from(["\n", " ", "Hi", "<|im_", "end|>", "\U00100000", "é<&'\""])
        | st.text(st.characters(codec="utf-8"), max_size=8),
        max_size=4,
    )
    .map("".join)
    .filter(lambda text: not any(special in text for special in SPECIAL_TEXTS))
)


def alternating(contents):
    roles = ["user", "assistant"] * len(contents)
    return [Message(role, content) for role, content in zip(roles, contents, strict=False)]


def dialogs(contents):
    return st.lists(contents, min_size=1, max_size=4).map(alternating)


def as_dicts(messages):
    return [{"role": message.role, "content": message.content} for message in messages]


@pytest.mark.parametrize("name", NAMES)
def test_text_and_tokens_equal_transformers(huggingface_tokenizer, tiny_tokenizer, templates, name):
    ours = TemplateFormat(templates[name], tiny_tokenizer, variables=VARIABLES)

    @given(dialogs(plain_contents), st.booleans())
    def check(messages, add_generation_prompt):
        options = {
            "chat_template": templates[name],
            "add_generation_prompt": add_generation_prompt,
        }
        text = huggingface_tokenizer.apply_chat_template(
            as_dicts(messages), tokenize=False, **options
        )
        assert ours.render(messages, add_generation_prompt=add_generation_prompt) == text
        if add_generation_prompt:
            theirs = huggingface_tokenizer.apply_chat_template(
                as_dicts(messages), return_dict=True, **options
            )
            assert ours.encode_prompt(messages) == theirs["input_ids"]

    check()


def test_tools_and_documents_equal_transformers(huggingface_tokenizer, tiny_tokenizer, templates):
    ours = TemplateFormat(templates["tools_and_documents"], tiny_tokenizer, variables=VARIABLES)
    tool = {"type": "function", "function": {"name": "f", "description": "<b> & 'é'"}}
    documents = [{"title": "A", "text": "<|im_", "x": 1}]
    messages = [
        Message("user", "Hi"),
        Message("assistant", tool_calls=(ToolCall("f", {"b": [1.5, None], "a": "é"}),)),
        Message("tool", "22"),
    ]
    dicts = as_dicts(messages)
    dicts[1]["tool_calls"] = [
        {"type": "function", "function": {"name": "f", "arguments": {"b": [1.5, None], "a": "é"}}}
    ]
    expected = huggingface_tokenizer.apply_chat_template(
        dicts,
        tools=[tool],
        documents=documents,
        chat_template=templates["tools_and_documents"],
        tokenize=False,
    )
    text = ours.render(messages, tools=[tool], documents=documents, add_generation_prompt=False)
    assert text == expected
    assert '"description": "<b> & \'é\'"' in text


def test_named_templates(tiny_tokenizer):
    ours = TemplateFormat({"default": "d", "tool_use": "t", "rag": "r"}, tiny_tokenizer)
    messages = [Message("user", "x")]
    assert ours.render(messages, add_generation_prompt=False) == "d"
    assert ours.render(messages, tools=[], add_generation_prompt=False) == "t"
    assert (
        TemplateFormat("d", tiny_tokenizer).render(messages, tools=[], add_generation_prompt=False)
        == "d"
    )
    with pytest.raises(InputError, match="default, only: rag"):
        TemplateFormat({"rag": "r"}, tiny_tokenizer)


def test_the_clock_stands_still_within_a_dialog(tiny_tokenizer):
    times = iter(datetime(2024, 7, 26, 0, 0, second) for second in range(9))
    ours = TemplateFormat(
        "{{ strftime_now('%d %b %Y %S') }}{% for m in messages %}{{ m.content }}{% endfor %}",
        tiny_tokenizer,
        now=lambda: next(times),
    )
    dialog = ours.format_dialog(alternating(["a", "b"]), add_generation_prompt=False)
    assert tiny_tokenizer.decode(dialog.tokens) == "26 Jul 2024 00ab"


def test_refusals_are_one_line_and_name_the_file(tiny_tokenizer, templates):
    ours = TemplateFormat(
        templates["alternating"], tiny_tokenizer, variables=VARIABLES, place="x/chat_template.jinja"
    )
    with pytest.raises(InputError) as error:
        ours.encode_prompt([Message("assistant", "x")])
    assert str(error.value) == (
        "x/chat_template.jinja: refuses this dialog: roles must alternate user/assistant"
    )
    with pytest.raises(InputError, match="messages"):
        ours.encode_prompt([])
    for bad in (3, "x", {"a": float("nan")}):
        with pytest.raises(InputError, match=r"tools\[0\]"):
            ours.encode_prompt([Message("user", "x")], tools=[bad])
        with pytest.raises(InputError, match=r"documents\[0\]"):
            ours.encode_prompt([Message("user", "x")], documents=[bad])
