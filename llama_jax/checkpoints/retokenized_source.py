"""A checkpoint with another tokenizer, as a source of tensors like any other; and `llama-jax
retokenize`.

The rows of the embedding, and of an untied head, are made anew: a new token's row is the mean of
the rows of the old tokens that write the same text. A token that both tokenizers have keeps its row
(special tokens by name, others by their bytes). One that is only a part of a character has the mean
of its bytes' rows. One that the old tokenizer cannot write, as SmolLM2's cannot some control
characters, has the mean of all rows. It is where training on, not answering, can begin.

Reference: L. Gee et al., Fast vocabulary transfer for language model compression, EMNLP 2022.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from llama_jax.checkpoints.asset_files import read_assets
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.dequantized import DequantizedSource
from llama_jax.checkpoints.dtypes import DtypeName, cast_tensor, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.host_only import stay_on_host
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import Assets, TensorSource, TensorSpec, quantized_names
from llama_jax.checkpoints.source_tokenizer import source_tokenizer
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.token_bytes import TokenBytes

# Tensors with a row for each token.
_BY_TOKEN = ("embedding", "head")
_LICENCES = ("LICENSE", "USE_POLICY", "NOTICE")


class RetokenizedSource:
    """`source`, whose weights are float ones, for a new tokenizer; see `TensorSource`. Means are
    made in float32 and rounded to the dtype of the weight once. Memory holds the old embedding or
    head and the new one."""

    def __init__(
        self, source: TensorSource, pieces: Sequence[Sequence[int]], *, assets: Assets
    ) -> None:
        """Args:
        pieces: for each new id, the old ids whose rows' mean it gets, or none for the mean of all;
          see `pieces_of_tokens`.
        assets: the new tokenizer's files.
        """
        self._source, self._pieces = source, pieces
        self.format, self.path, self.assets = source.format, source.path, assets
        self.config = dataclasses.replace(source.config, vocab_size=len(pieces))
        self.tensors = {
            name: TensorSpec((len(pieces), *spec.shape[1:]), spec.dtype)
            if name in _BY_TOKEN
            else spec
            for name, spec in source.tensors.items()
        }

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name`, or its part `index`."""
        if name not in _BY_TOKEN:
            return self._source.read(name, index)
        old = self._source.read(name)
        mean_of_all = old.mean(0, dtype=np.float32)
        new = np.empty(self.tensors[name].shape, np.float32)
        for row, ids in enumerate(self._pieces):
            new[row] = old[list(ids)].mean(0, dtype=np.float32) if ids else mean_of_all
        return cast_tensor(new, self.tensors[name].dtype, name)[index]


def pieces_of_tokens(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """For each id of `new`, the ids of `old` that write the same; none if it cannot."""
    old_bytes, new_bytes = TokenBytes(old), TokenBytes(new)
    old_special = set(old.special_tokens.values())
    # SentencePiece has bytes that are characters twice. The piece, which comes later, is in use.
    by_bytes = {
        old_bytes.of(token_id): token_id
        for token_id in range(old.vocab_size)
        if token_id not in old_special
    }
    names = {token_id: name for name, token_id in new.special_tokens.items()}
    pieces = []
    for token_id in range(new.vocab_size):
        if token_id in names:
            name = names[token_id]
            same = old.special_tokens.get(name)
            pieces.append(old.encode(name) if same is None else [same])
            continue
        token = new_bytes.of(token_id)
        pieces.append([by_bytes[token]] if token in by_bytes else _encoded(token, old, by_bytes))
    return pieces


def _encoded(token: bytes, old: Tokenizer, by_bytes: dict[bytes, int]) -> list[int]:
    try:
        return old.encode(token.decode())
    except UnicodeDecodeError:
        singles = (token[place : place + 1] for place in range(len(token)))
        return [by_bytes[byte] for byte in singles if byte in by_bytes]


def _assets(old: Assets, tokenizer: Path) -> Assets:
    """The new tokenizer's files, and the licences of the weights."""
    new = read_assets(tokenizer)
    licences = {name: content for name, content in old.files.items() if name.startswith(_LICENCES)}
    return Assets({**new.files, **licences}, new.generation)


def retokenize_command(
    source: tyro.conf.Positional[str],
    destination: tyro.conf.Positional[Path],
    *,
    tokenizer: Path,
    to: Literal["hf", "meta", "orbax"] = "orbax",
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Gives a checkpoint another tokenizer: each new token begins as the mean of the old tokens
    that write the same text. To be trained on afterwards.

    Example: llama-jax retokenize llama-8b llama-8b-32k --tokenizer tokenizer-32k

    Args:
      source: a checkpoint of any format, with its tokenizer; quantised weights are multiplied out,
        in --dtype or bfloat16.
      destination: folder to be created.
      tokenizer: folder of the new tokenizer, such as `llama-jax tokenizer train` makes.
      to: format to write.
      dtype: for every tensor; by default each keeps its own.
      overwrite: replace a checkpoint at the destination, once the new one is whole.
      quiet: no progress.
    """
    stay_on_host()
    if not tokenizer.is_dir():
        raise InputError(f"--tokenizer {tokenizer}: no such folder; give a tokenizer's folder")
    opened = open_source(resolve_source(source))
    old, new = source_tokenizer(opened), load_tokenizer(tokenizer)
    if old.vocab_size > opened.config.vocab_size:
        raise InputError(
            f"{source}: its tokenizer has {old.vocab_size} tokens and its embedding "
            f"{opened.config.vocab_size} rows; they do not belong together"
        )
    pieces = pieces_of_tokens(old, new)
    if quantized_names(opened.tensors):
        opened = DequantizedSource(opened, dtype_named(dtype or "bfloat16"))
    changed = RetokenizedSource(opened, pieces, assets=_assets(opened.assets, tokenizer))
    done = convert(changed, destination, to=to, dtype=dtype, overwrite=overwrite, quiet=quiet)
    kept = sum(len(ids) == 1 for ids in pieces)
    unwritten = sum(not ids for ids in pieces)
    print(
        f"{destination}: {old.vocab_size:,} tokens to {new.vocab_size:,}, of which {kept:,} have "
        f"the row of one old token and {unwritten:,}, which the old tokenizer cannot write, the "
        f"mean of all; {done}, verified"
    )
