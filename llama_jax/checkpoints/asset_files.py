"""What a checkpoint folder carries beside its weights: which files, read and written.

The same for every format: tokenizer, chat templates, licences, and the generation defaults.
"""

import shutil
from pathlib import Path
from typing import Any

from llama_jax.checkpoints.interface import Assets
from llama_jax.json_file import read_json, write_json

GENERATION_FILE = "generation_config.json"
CHAT_TEMPLATES_FOLDER = "additional_chat_templates"
# Licences travel with the weights because they say that they must. A README does not: it describes
# one published repository.
ASSET_PATTERNS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    f"{CHAT_TEMPLATES_FOLDER}/*.jinja",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)


def read_assets(folder: Path, config_fields: dict[str, Any] | None = None) -> Assets:
    """Tokenizer, template and licence files of `folder`, and its generation defaults.

    Meta's own repositories keep `tokenizer.model` under `original/`; it is carried under its name.

    Args:
      folder: the checkpoint.
      config_fields: a parsed `config.json`, whose token ids count where there is no
        `generation_config.json`, as in transformers.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for pattern in ASSET_PATTERNS
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    original = folder / "original" / "tokenizer.model"
    if "tokenizer.model" not in files and original.is_file():
        files["tokenizer.model"] = original
    if (folder / GENERATION_FILE).is_file():
        return Assets(files, read_json(folder / GENERATION_FILE))
    fields = config_fields or {}
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return Assets(files, {key: fields[key] for key in ids if fields.get(key) is not None})


def write_assets(folder: Path, assets: Assets) -> None:
    """Puts the files, verbatim, and the generation defaults into `folder`."""
    for name, content in assets.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
    if assets.generation:
        write_json(folder / GENERATION_FILE, dict(assets.generation))
