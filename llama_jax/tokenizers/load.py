"""One function for every tokenizer file: which files are looked for, and which one wins.

In a folder, the first of these that exists is taken:

1. `tokenizer.json`. It wins because the stop ids and the chat template lie beside it; a Hugging
   Face repository of Llama 3.1 holds Meta's `original/tokenizer.model` as well, with the same ids.
2. `tokenizer.model`, 3. `original/tokenizer.model`. Meta gave this name to two kinds of file: Llama
   2's is SentencePiece and Llama 3's is tiktoken ranks. The first line tells them apart.
"""

from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.llama31 import Llama31Tokenizer
from llama_jax.tokenizers.rank_file import is_rank_file
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer

_LOOKED_FOR = ("tokenizer.json", "tokenizer.model", "original/tokenizer.model")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder or of a tokenizer file.

    Args:
      path: a folder, a `tokenizer.json` (the configuration files beside it count), a `.model` file.

    Raises `InputError` that says which files were looked for, or what is wrong with the one found.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in _LOOKED_FOR if (path / name).is_file()]
        if not found:
            raise InputError(
                f"{path}: no tokenizer there; looked for {', '.join(_LOOKED_FOR)}: copy one of "
                "them from where the model was published"
            )
        path = found[0]
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; give a checkpoint or a tokenizer file")
    if path.name == "tokenizer.json":
        return HuggingFaceTokenizer.from_folder(path.parent)
    if path.suffix != ".model":
        raise InputError(
            f"{path}: not a tokenizer file; give a folder, a tokenizer.json or a .model file"
        )
    return Llama31Tokenizer(path) if is_rank_file(path) else SentencePieceTokenizer(path)
