import base64
import json

import pytest

from llama_jax.chat import LLAMA_31_TEMPLATE, Message, chat_format_for, read_chat_template
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.llama31 import NUM_RANKS

MESSAGES = [Message("user", "Hi")]


def write_config(folder, **fields):
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def test_a_checkpoints_template_comes_first(tmp_path, llama_tokenizer):
    write_config(
        tmp_path,
        chat_template=LLAMA_31_TEMPLATE,
        bos_token={"content": "<|begin_of_text|>", "special": True},
        pad_token=None,
    )
    chat_format = chat_format_for(tmp_path, llama_tokenizer)
    assert chat_format.name == "template"
    dialog = chat_format.format_dialog(MESSAGES, add_generation_prompt=True)
    assert list(dialog.tokens) == chat_format.encode_prompt(MESSAGES)
    text = llama_tokenizer.decode(dialog.tokens)
    assert text.startswith("<|begin_of_text|>")
    assert "Today Date" in text
    assert chat_format_for(tmp_path, llama_tokenizer, name="llama31").name == "llama31"


def test_no_template_is_a_base_model_whatever_its_tokens(tmp_path, llama_tokenizer, tiny_tokenizer):
    write_config(tmp_path, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    assert chat_format_for(tmp_path, llama_tokenizer) is None
    with pytest.raises(InputError, match="has no chat template"):
        chat_format_for(tmp_path, llama_tokenizer, name="template")
    chat_format = chat_format_for(tmp_path, llama_tokenizer, name="llama31")
    assert "Today Date" not in llama_tokenizer.decode(chat_format.encode_prompt(MESSAGES))
    assert chat_format_for(tmp_path, tiny_tokenizer) is None
    with pytest.raises(InputError, match=r"no token <\|begin_of_text"):
        chat_format_for(tmp_path, tiny_tokenizer, name="llama31")
    with pytest.raises(InputError, match="auto, llama31, template"):
        chat_format_for(tmp_path, tiny_tokenizer, name="chatml")


def test_metas_rank_file_is_taken_for_a_tuned_model(tmp_path):
    singles = [bytes([byte]) for byte in range(256)]
    tokens = [*singles, *(a + b + c for a in singles for b in singles for c in singles[:2])]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines[:NUM_RANKS]))
    assert chat_format_for(tmp_path, load_tokenizer(tmp_path)).name == "llama31"


def test_where_templates_lie(tmp_path, tiny_tokenizer):
    assert read_chat_template(tmp_path)[0] is None
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<|im_start|>"}')
    listed = [{"name": "default", "template": "{{ bos_token }}c"}, {"name": "rag", "template": "r"}]
    write_config(tmp_path, chat_template=listed)
    template, place = read_chat_template(tmp_path)
    assert template == {"default": "{{ bos_token }}c", "rag": "r"}
    assert place == f"{tmp_path / 'tokenizer_config.json'}: chat_template"
    chat_format = chat_format_for(tmp_path, tiny_tokenizer)
    assert chat_format.render(MESSAGES, add_generation_prompt=False) == "<|im_start|>c"

    (tmp_path / "chat_template.jinja").write_text("é")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("t")
    template, place = read_chat_template(tmp_path)
    assert template == {"default": "é", "tool_use": "t"}
    assert place == str(tmp_path / "chat_template.jinja")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"chat_template": 3}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "rag", "template": "r"}]}'),
        ("tokenizer_config.json", b'{"chat_template": "{% if %}"}'),
        ("tokenizer_config.json", b'{"chat_template": "x", "bos_token": 3}'),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", b"{{"),
    ],
)
def test_broken_files_are_named(tmp_path, tiny_tokenizer, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        chat_format_for(tmp_path, tiny_tokenizer)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
