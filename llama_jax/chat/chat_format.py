"""Which chat format a checkpoint is talked to in.

A checkpoint that carries a chat template is talked to through it: it is what the model was tuned
with. One that carries none is a base model, whatever its special tokens: Llama 3.1's base and
Instruct models share theirs. Only Meta's own folders cannot say which they are: where Meta's rank
file (`tokenizer.model`, no `tokenizer.json`) is the tokenizer, Llama 3.1's format is taken.

Templates are looked for where transformers looks: `chat_template.jinja` (and other names in
`additional_chat_templates/`), else `chat_template` in `tokenizer_config.json`, one or several.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from llama_jax.chat.interface import ChatFormat
from llama_jax.chat.llama31_format import Llama31Format
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.llama31 import Llama31Tokenizer

# The special tokens a template may name, as variables.
_TOKEN_VARIABLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def chat_format_for(
    checkpoint_folder: str | Path,
    tokenizer: Tokenizer,
    *,
    name: Literal["auto", "llama31", "template"] = "auto",
    now: Callable[[], datetime] = datetime.now,
) -> ChatFormat | None:
    """The chat format of a checkpoint; its attribute `name` says which it is. None: a base model.

    Args:
      checkpoint_folder: where the tokenizer's files lie.
      tokenizer: the checkpoint's.
      name: `llama31` or `template` insists on one, and then the answer is never None.
      now: tells the time to templates that ask for it.

    Raises:
      InputError: the checkpoint does not have what the format asked for needs, or a file of it
        cannot be understood.
    """
    folder = Path(checkpoint_folder)
    if name not in ("auto", "llama31", "template"):
        raise InputError(f"chat format: {name!r} is not one of auto, llama31, template")
    if name == "llama31":
        return Llama31Format(tokenizer)
    template, place = read_chat_template(folder)
    if template is not None:
        from llama_jax.chat.template import TemplateFormat

        variables = _token_variables(folder)
        return TemplateFormat(template, tokenizer, variables=variables, place=place, now=now)
    if name == "template":
        raise InputError(
            f"{folder}: has no chat template (no chat_template.jinja, and no chat_template in "
            "tokenizer_config.json)"
        )
    return Llama31Format(tokenizer) if isinstance(tokenizer, Llama31Tokenizer) else None


def read_chat_template(folder: str | Path) -> tuple[str | dict[str, str] | None, str]:
    """The chat template in `folder` and the file it is from: Jinja source, or several by name, or
    None if there is none.

    Raises:
      InputError: a file cannot be understood.
    """
    folder = Path(folder)
    path = folder / "chat_template.jinja"
    if path.is_file():
        others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        templates = {other.stem: _read_text(other) for other in others}
        return {**templates, "default": _read_text(path)}, str(path)
    path = folder / "tokenizer_config.json"
    template = _read_json(path).get("chat_template")
    if isinstance(template, list):
        if not all(
            isinstance(item, dict)
            and isinstance(item.get("name"), str)
            and isinstance(item.get("template"), str)
            for item in template
        ):
            raise InputError(f"{path}: chat_template must list objects with name and template")
        template = {item["name"]: item["template"] for item in template}
    if template is not None and not isinstance(template, str | dict):
        raise InputError(f"{path}: chat_template must be text or a list of named templates")
    return template, f"{path}: chat_template"


def _token_variables(folder: Path) -> dict[str, str]:
    """`bos_token` and so on, as text."""
    declared: dict[str, Any] = {
        **_read_json(folder / "special_tokens_map.json"),
        **_read_json(folder / "tokenizer_config.json"),
    }
    variables = {}
    for name in _TOKEN_VARIABLES:
        # A token is written as its text, or as an object with a field `content`.
        token = declared.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if text is not None:
            if not isinstance(text, str):
                raise InputError(f"{folder}/tokenizer_config.json: {name} must be a token's text")
            variables[name] = text
    return variables


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; download it again") from None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in `path`, empty if there is no such file."""
    return read_json(path) if path.is_file() else {}
