"""What every tokenizer does to what comes in, so that no library underneath fails on it."""

from collections.abc import Sequence

from llama_jax.errors import InputError


def well_formed(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD. A str of Python can hold half a surrogate
    pair (JSON may bring one in), which UTF-8, and hence the tokenizer libraries, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def check_ids(ids: Sequence[int], *, vocab_size: int) -> None:
    """Raises `InputError` on an id outside the vocabulary, which the libraries drop or panic at."""
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise InputError(
                f"token id {token_id} is outside the vocabulary of {vocab_size}; decode with the "
                "tokenizer that made the ids"
            )
