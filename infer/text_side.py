"""The text side of a checkpoint, without its weights: tokenizer, chat format, whether text begins
with BOS.

A GGUF file has its tokenizer in its metadata, a training run in a folder of its own: for a moment,
its files are written out and read like those of any other checkpoint.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llama_jax.chat import ChatFormat, chat_format_for
from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from llama_jax.checkpoints.interface import TensorSource


class TextSide(NamedTuple):
    """Attributes:
    tokenizer: text to ids and back.
    chat_format: None for a base model; Llama 3.1's, as an assumption, for Meta's own tokenizer
      file (see `chat_format_for`).
    begins_with_bos: whether plain text is preceded by `tokenizer.bos_id`.
    """

    tokenizer: Tokenizer
    chat_format: ChatFormat | None
    begins_with_bos: bool

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text to be continued, BOS included where the model wants one."""
        start = [self.tokenizer.bos_id] if self.begins_with_bos else []
        return start + self.tokenizer.encode(text)


def has_text_apart(source: "TensorSource") -> bool:
    """Whether the text side is no file beside the weights: inside the .gguf, or with the run."""
    return source.format in ("gguf", "training") and bool(source.assets.files)


def load_text_side(path: Path, source: "TensorSource") -> TextSide:
    """Of the checkpoint at `path`, opened as `source`. Raises `InputError` that names the file."""
    if not has_text_apart(source):
        return _load(path)
    with tempfile.TemporaryDirectory() as folder:
        write_assets(Path(folder), source.assets)
        return _load(Path(folder))


def _load(folder: Path) -> TextSide:
    tokenizer = load_tokenizer(folder)
    begins_with_bos = _begins_with_bos(folder, tokenizer)
    return TextSide(tokenizer, chat_format_for(folder, tokenizer), begins_with_bos)


def _begins_with_bos(folder: Path, tokenizer: Tokenizer) -> bool:
    """A tokenizer.json says it in its post-processor: the empty text comes out as BOS alone. Meta's
    and SentencePiece's files cannot say; their models were trained with BOS."""
    if tokenizer.bos_id is None or not (folder / "tokenizer.json").is_file():
        return tokenizer.bos_id is not None
    from tokenizers import Tokenizer as TokenizerFile

    empty = TokenizerFile.from_file(str(folder / "tokenizer.json")).encode("").ids
    return empty[:1] == [tokenizer.bos_id]
