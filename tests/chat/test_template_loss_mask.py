"""Which tokens of a rendered dialog the loss sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.chat.messages import Message
from llama_jax.chat.template import TemplateFormat
from llama_jax.errors import InputError

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
forged_contents = st.lists(
    st.sampled_from([*SPECIAL_TEXTS, "</think>", "\n", " ", "Hi", "\U00100000"]), max_size=5
).map("".join)


def alternating(contents):
    roles = ["user", "assistant"] * len(contents)
    return [Message(role, content) for role, content in zip(roles, contents, strict=False)]


def dialogs(contents):
    return st.lists(contents, min_size=1, max_size=4).map(alternating)


def as_dicts(messages):
    return [{"role": message.role, "content": message.content} for message in messages]


def masked_texts(dialog, tokenizer):
    texts, run = [], []
    for token, learned in [*zip(dialog.tokens, dialog.loss_mask, strict=True), (None, 0)]:
        if learned:
            run.append(token)
        elif run:
            texts.append(tokenizer.decode(run))
            run = []
    return texts


def test_generation_mask_equals_transformers(huggingface_tokenizer, tiny_tokenizer, templates):
    ours = TemplateFormat(templates["chatml_with_generation"], tiny_tokenizer)

    @given(dialogs(plain_contents))
    def check(messages):
        theirs = huggingface_tokenizer.apply_chat_template(
            as_dicts(messages),
            chat_template=templates["chatml_with_generation"],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        dialog = ours.format_dialog(messages, add_generation_prompt=False)
        assert list(dialog.tokens) == theirs["input_ids"]
        assert list(dialog.loss_mask) == theirs["assistant_masks"]

    check()


@pytest.mark.parametrize("name", ["chatml", "chatml_with_generation"])
def test_loss_sees_what_the_assistant_said_and_its_end(tiny_tokenizer, templates, name):
    ours = TemplateFormat(templates[name], tiny_tokenizer)
    contents = (plain_contents | forged_contents).map(lambda text: "x" + text)

    @given(dialogs(contents), st.booleans())
    def check(messages, add_generation_prompt):
        dialog = ours.format_dialog(messages, add_generation_prompt=add_generation_prompt)
        said = [m.content + "<|im_end|>" for m in messages if m.role == "assistant"]
        assert masked_texts(dialog, tiny_tokenizer) == said
        if add_generation_prompt:
            assert list(dialog.tokens) == ours.encode_prompt(messages)

    check()


def test_text_that_merges_with_the_header_is_learned(tiny_tokenizer, templates):
    # "\n\n" is one token, of the header's end and of what the assistant says.
    assert len(tiny_tokenizer.encode("\n\n")) == 1
    ours = TemplateFormat(templates["chatml"], tiny_tokenizer)
    dialog = ours.format_dialog(
        [Message("user", "Hi"), Message("assistant", "\n")], add_generation_prompt=False
    )
    assert masked_texts(dialog, tiny_tokenizer) == ["\n\n<|im_end|>"]


def test_loss_of_a_template_that_ends_turns_with_text(tiny_tokenizer):
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    ours = TemplateFormat(template, tiny_tokenizer)
    dialog = ours.format_dialog(alternating(["a", "b", "c", "d"]), add_generation_prompt=False)
    text = "".join(masked_texts(dialog, tiny_tokenizer))
    assert text.replace(" ", "") == "b\nd\n"


def test_dialogs_without_a_loss_mask_are_refused_and_still_answered(tiny_tokenizer, templates):
    ours = TemplateFormat(templates["drops_thoughts"], tiny_tokenizer)
    messages = alternating(["Q", "T</think>A", "Q", "B"])
    with pytest.raises(InputError, match=r"messages\[1\] changes when later messages follow"):
        ours.format_dialog(messages, add_generation_prompt=False)
    assert ours.encode_prompt(messages[:3])
    assert ours.format_dialog(messages[2:], add_generation_prompt=False)

    with pytest.raises(InputError, match="comes first"):
        TemplateFormat(templates["chatml"], tiny_tokenizer).format_dialog(
            [Message("assistant", "x")], add_generation_prompt=False
        )
    no_header = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ '!' if add_generation_prompt }}"
    )
    with pytest.raises(InputError, match="does not begin with its generation prompt"):
        TemplateFormat(no_header, tiny_tokenizer).format_dialog(
            alternating(["a", "b"]), add_generation_prompt=False
        )
    cut = "{% set x %}{% generation %}abc{% endgeneration %}{% endset %}{{ x[:-1] }}"
    with pytest.raises(InputError, match="nested or cut"):
        TemplateFormat(cut, tiny_tokenizer).encode_prompt([Message("user", "x")])
