"""The tokenizer's files travel with the run, so that its checkpoints convert to whole folders."""

from pathlib import Path

from llama_jax.chat import ChatFormat
from llama_jax.checkpoints.asset_files import read_assets, write_assets
from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.training_layout import TOKENIZER_FOLDER
from llama_jax.tokenizers import load_tokenizer
from train.process_zero import on_process_zero
from train.run_chat_format import with_turn_ends


def copy_tokenizer(
    run_folder: str | Path, tokenizer_path: str | Path, chat_format: ChatFormat | None = None
) -> None:
    """Copies the tokenizer's files into `run_folder/tokenizer`, with the licences and generation
    defaults beside them. All processes call it; process 0 copies, and the others wait.

    Args:
      tokenizer_path: a folder or file that `load_tokenizer` knows.
      chat_format: that the run teaches, if it does; answers will end where its turns do.
    """
    folder = Path(run_folder) / TOKENIZER_FOLDER

    def copy() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(tokenizer_path)
        assets = tokenizer_assets(path)
        if chat_format is not None:
            assets = with_turn_ends(assets, load_tokenizer(path), chat_format)
        write_assets(folder, assets)

    on_process_zero(copy)


def tokenizer_assets(path: Path) -> Assets:
    """What `path` holds beside weights. Of a single file, it alone, unless it is a tokenizer.json,
    which is read with what lies beside it."""
    if path.is_dir() or path.name == "tokenizer.json":
        return read_assets(path if path.is_dir() else path.parent)
    return Assets({"tokenizer.model": path})
