"""The tokens that stand before and after every document."""

from typing import NamedTuple

from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

# Tuned models stop at the end of a message, and their files call that EOS; a document of a corpus
# ends with the token of the base model: Llama 3's, GPT-2's and SmolLM's, Llama 2's.
_END_OF_TEXT = ("<|end_of_text|>", "<|endoftext|>", "</s>")


class DocumentBoundary(NamedTuple):
    """Ids, or None where nothing is put."""

    bos_id: int | None
    eos_id: int | None


def document_boundary(
    tokenizer: Tokenizer, *, bos: str | None = None, eos: str | None = None
) -> DocumentBoundary:
    """BOS is the tokenizer's, if it has one; EOS is its end-of-text token.

    Args:
      bos, eos: the text of another special token, or `none` to put nothing.

    Raises `InputError` if a text is no special token, or if it is not clear which token EOS is.
    """
    return DocumentBoundary(
        tokenizer.bos_id if bos is None else _named(tokenizer, "--bos", bos),
        _end_of_text(tokenizer) if eos is None else _named(tokenizer, "--eos", eos),
    )


def _named(tokenizer: Tokenizer, option: str, text: str) -> int | None:
    if text == "none":
        return None
    if text not in tokenizer.special_tokens:
        some = ", ".join(list(tokenizer.special_tokens)[:6])
        raise InputError(f"{option} {text!r}: no special token of the tokenizer; it has {some}")
    return tokenizer.special_tokens[text]


def _end_of_text(tokenizer: Tokenizer) -> int:
    for text in _END_OF_TEXT:
        if text in tokenizer.special_tokens:
            return tokenizer.special_tokens[text]
    if len(tokenizer.eos_ids) != 1:
        raise InputError(
            "--eos: say which special token ends a document, or none; the tokenizer names "
            f"{len(tokenizer.eos_ids)} tokens as EOS"
        )
    return next(iter(tokenizer.eos_ids))
