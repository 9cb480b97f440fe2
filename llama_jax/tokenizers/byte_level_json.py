"""The `tokenizer.json` of a byte-level byte-pair tokenizer, for the `tokenizers` library.

Written as plain JSON rather than through the library, whose builder would set the ids of special
tokens by itself.

Reference: https://huggingface.co/docs/tokenizers/api/models, and the files published with Llama
3.1 and SmolLM2, whose shape this is.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def byte_level_json(
    *,
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    pre_tokenizers: Sequence[Mapping[str, Any]],
    ignore_merges: bool,
    added_tokens: Sequence[Mapping[str, Any]],
    bos: tuple[str, int] | None,
) -> bytes:
    """Content of `tokenizer.json`.

    Args:
      vocabulary: token, in GPT-2's byte alphabet -> id.
      merges: pairs of tokens, the first to merge first.
      pre_tokenizers: how text is cut into words, in the library's terms.
      ignore_merges: take a word that is a token whole, even if no merges lead to it, as tiktoken.
      added_tokens: of `added_token`, in the order of their ids.
      bos: text and id of the token to put before every text, or None.
    """
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    processors: list[dict[str, Any]] = [byte_level]
    if bos is not None:
        processors.append(put_before_every_text(*bos))
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added_tokens),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(pre_tokenizers)},
        "post_processor": {"type": "Sequence", "processors": processors},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocabulary),
            # The form with a space is read by every release of the library; the one with a list of
            # two only by those after 0.20. No token has a space: the byte alphabet has none.
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, indent=1).encode("utf-8")


def added_token(text: str, token_id: int, *, special: bool) -> dict[str, Any]:
    """One entry of `added_tokens`: a text that stands outside the merges."""
    return {
        "id": token_id,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def split_pre_tokenizers(pattern: str) -> list[dict[str, Any]]:
    """Words are the matches of `pattern`."""
    return [
        {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        },
        _byte_level_pre_tokenizer(use_regex=False),
    ]


def gpt2_pre_tokenizers() -> list[dict[str, Any]]:
    """Words are GPT-2's."""
    return [_byte_level_pre_tokenizer(use_regex=True)]


def single_digits_pre_tokenizers() -> list[dict[str, Any]]:
    """Words are GPT-2's, but every digit is one by itself: SmolLM's and StarCoder's."""
    return [{"type": "Digits", "individual_digits": True}, *gpt2_pre_tokenizers()]


def _byte_level_pre_tokenizer(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def put_before_every_text(token: str, token_id: int) -> dict[str, Any]:
    def bos(type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    return {
        "type": "TemplateProcessing",
        "single": [bos(0), text("A", 0)],
        "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }
