"""A tiktoken rank file: a byte-pair vocabulary, one token a line.

Each line is the token's bytes in base64, a space, and its rank, which is both its id and the order
in which byte-pair encoding merges: the lower, the earlier. Meta publishes Llama 3's vocabulary so
(`tokenizer.model`), with ranks 0, 1, 2, ... in file order; this reader demands that order, which
catches repeated, lost and cut-off lines at once.

Reference: https://github.com/openai/tiktoken, `tiktoken/load.py`.
"""

import base64
import binascii
from pathlib import Path

from llama_jax.errors import InputError

# Llama 3's file is 2.2 MB and Llama 4's 3.6 MB: anything far larger is another kind of file, and is
# not read into memory.
MAX_RANK_FILE_BYTES = 64 << 20


def read_rank_file(path: Path) -> dict[bytes, int]:
    """Token bytes -> rank, ranks 0 to n-1 in this order; all 256 single bytes are among them.

    Raises `InputError` that names the file and the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a tiktoken tokenizer.model")
    if path.stat().st_size > MAX_RANK_FILE_BYTES:
        raise InputError(
            f"{path}: larger than {MAX_RANK_FILE_BYTES >> 20} MiB, so not a tiktoken rank file; "
            "give the tokenizer.model that came with the model"
        )
    ranks: dict[bytes, int] = {}
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    for expected_rank, line in enumerate(lines):
        token, rank = _parse_line(line, f"{path}: line {expected_rank + 1}")
        if rank != expected_rank:
            raise InputError(
                f"{path}: line {expected_rank + 1} has rank {rank} where {expected_rank} must "
                "stand; a line is repeated, lost or cut off: download the file again"
            )
        if token in ranks:
            raise InputError(
                f"{path}: line {expected_rank + 1} repeats the token of line {ranks[token] + 1}; "
                "download the file again"
            )
        ranks[token] = rank
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise InputError(
                f"{path}: no token for the single byte 0x{byte:02x}, so not every text can be "
                "encoded; download the file again"
            )
    return ranks


def is_rank_file(path: Path) -> bool:
    """Whether the first line of `path` reads as `base64 rank`; says nothing of the rest."""
    with open(path, "rb") as file:
        first_line = file.readline(1024)
    try:
        _parse_line(first_line.rstrip(b"\n"), str(path))
    except InputError:
        return False
    return True


def _parse_line(line: bytes, place: str) -> tuple[bytes, int]:
    encoded, separator, rank = line.rstrip(b"\r").partition(b" ")
    if not separator or not rank.isdigit() or len(rank) > 9:
        raise InputError(
            f"{place} is not `base64 rank` as in a tiktoken rank file: {line[:40]!r}; give the "
            "tokenizer.model that came with the model"
        )
    try:
        token = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise InputError(
            f"{place} has bad base64 {encoded[:40]!r} ({error}); download the file again"
        ) from error
    if not token:
        raise InputError(f"{place} has an empty token; download the file again")
    return token, int(rank)
