"""`llama-jax tokenizer report`: tokenizers beside one another on the same texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from llama_jax.checkpoints.transfer_progress import transfer_progress
from llama_jax.errors import InputError
from llama_jax.machine_description import describe_machine
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.whole_file import whole_file
from train.data.corpus_files import CorpusFile
from train.output_folder import check_output_folder
from train.tokenizer.corpus import check_not_empty, corpus_by_language, named_input
from train.tokenizer.measure import cut_texts, measure
from train.tokenizer.text_blocks import text_blocks

# About a page: what a document has, and long enough that a tokenizer's start does not count.
_TEXT_CHARACTERS = 8_000
_PACKAGES = ("sentencepiece", "tokenizers", "tiktoken")


def report_command(
    tokenizers: tyro.conf.Positional[tuple[str, ...]],
    *,
    corpus: tuple[str, ...],
    output: Path | None = None,
    max_characters: int = 2_000_000,
    text_field: str = "text",
    quiet: bool = False,
) -> None:
    """Measures tokenizers on texts, language by language: characters per token, tokens per word,
    tokens that hold only a part of a character, texts that come back whole, speed of encoding.

    Example: llama-jax tokenizer report tokenizer-32k llama31=llama-8b --corpus en=en.txt de=de.txt

    Args:
      tokenizers: NAME=WHERE or only where: checkpoint folders, a tokenizer.json, a tokenizer.model
        or a .gguf file.
      corpus: LANGUAGE=WHERE or only where, as for `tokenizer train`.
      output: folder for report.json and report.png.
      max_characters: of each language, from its beginning.
      text_field: the JSON field or Parquet column that holds the text.
      quiet: no progress and no table.
    """
    if not tokenizers:
        raise InputError("name a tokenizer: a checkpoint folder or a tokenizer file")
    if max_characters < 1:
        raise InputError(f"--max-characters must be at least 1, not {max_characters}")
    if output is None and quiet:
        raise InputError("--quiet without --output shows nothing; leave one out")
    if output is not None:
        check_output_folder(output)
    loaded = _load(tokenizers)
    files = corpus_by_language(corpus)
    result = {
        "texts": {
            language: {"files": [file.path for file in group]} for language, group in files.items()
        },
        "max_characters": max_characters,
        "tokenizers": {
            name: {"vocab_size": tokenizer.vocab_size, "sha256": tokenizer_hash(tokenizer)}
            for name, tokenizer in loaded.items()
        },
        "rows": _rows(
            loaded, files, max_characters=max_characters, text_field=text_field, quiet=quiet
        ),
        "machine": describe_machine(_PACKAGES),
    }
    if not quiet:
        from train.tokenizer.report_table import print_table

        print_table(result["rows"])
    if output is not None:
        _write(output, result)
        print(f"{output}: report.json, report.png")


def _load(given: Sequence[str]) -> dict[str, Tokenizer]:
    loaded: dict[str, Tokenizer] = {}
    for argument in given:
        name, where = named_input(argument)
        path = Path(where)
        # A file is named tokenizer.model everywhere: its folder says more.
        name = name or (path.resolve() if path.is_dir() else path.resolve().parent).name
        if name in loaded:
            raise InputError(f"{argument}: another tokenizer is called {name}; give NAME=WHERE")
        loaded[name] = _tokenizer(path)
    return loaded


def _tokenizer(path: Path) -> Tokenizer:
    if path.suffix != ".gguf":
        return load_tokenizer(path)
    from llama_jax.checkpoints.formats import open_source
    from llama_jax.checkpoints.source_tokenizer import source_tokenizer

    return source_tokenizer(open_source(path))


def _rows(
    tokenizers: Mapping[str, Tokenizer],
    files: Mapping[str, Sequence[CorpusFile]],
    *,
    max_characters: int,
    text_field: str,
    quiet: bool,
) -> list[dict[str, Any]]:
    texts = {}
    for language, group in files.items():
        found = (text for file in group for text in _texts(file, text_field))
        texts[language] = cut_texts(
            found, text_characters=_TEXT_CHARACTERS, max_characters=max_characters
        )
        check_not_empty(language, len(texts[language]), len(group))
    total = sum(len(text) for parts in texts.values() for text in parts) * len(tokenizers)
    rows = []
    with transfer_progress("encoding", total, quiet=quiet) as advance:
        for language, parts in texts.items():
            for name, tokenizer in tokenizers.items():
                measured = measure(tokenizer, parts)
                rows.append(
                    {
                        "language": language,
                        "tokenizer": name,
                        **measured.rates(),
                        "num_characters": measured.num_characters,
                        "num_tokens": measured.num_tokens,
                    }
                )
                advance(measured.num_characters)
    return rows


def _texts(file: CorpusFile, text_field: str):
    for record in text_blocks(file, text_field=text_field):
        if record.text is None:
            raise InputError(f"{record.complaint}; put it right, or take it out")
        yield record.text


def _write(output: Path, result: Mapping[str, Any]) -> None:
    from train.tokenizer.report_figure import draw_report

    output.mkdir(parents=True, exist_ok=True)
    figure = draw_report(result["rows"])
    for name, write in (
        ("report.json", lambda file: file.write(json.dumps(result, indent=2).encode())),
        ("report.png", lambda file: figure.savefig(file, format="png")),
    ):
        with whole_file(output / name) as file:
            write(file)
