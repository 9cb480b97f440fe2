"""What a Hugging Face folder carries beside its weights, and where it stands."""

from pathlib import Path
from typing import Any

from llama_jax.checkpoints.interface import Assets
from llama_jax.json_file import read_json

# Licences travel with the weights because they say that they must. A README does not: it describes
# one published repository.
_ASSET_PATTERNS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)


def read_assets(folder: Path, config_fields: dict[str, Any]) -> Assets:
    """Tokenizer and licence files of `folder`, and its generation defaults.

    Without a `generation_config.json`, the token ids of `config.json` count, as in transformers.
    Meta's own repositories keep `tokenizer.model` under `original/`; it is carried under its name.
    """
    files = {
        path.name: path
        for pattern in _ASSET_PATTERNS
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    original = folder / "original" / "tokenizer.model"
    if "tokenizer.model" not in files and original.is_file():
        files["tokenizer.model"] = original
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
    else:
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        generation = {key: config_fields[key] for key in ids if config_fields.get(key) is not None}
    return Assets(files, generation)
