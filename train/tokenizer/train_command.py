"""`llama-jax tokenizer train`: text in one or many languages to a new tokenizer."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from train.disk_space import advising_space


def train_command(
    corpus: tyro.conf.Positional[tuple[str, ...]],
    *,
    output: Path,
    vocab_size: int = 32_000,
    temperature: float = 3.0,
    special_tokens: tuple[str, ...] = (),
    num_special_tokens: int = 256,
    character_coverage: float = 0.9999,
    chat_template: Literal["llama31", "none"] = "llama31",
    text_field: str = "text",
    on_error: Literal["stop", "skip"] = "stop",
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Trains a SentencePiece BPE tokenizer: bytes for what has no token, digits alone, nothing
    normalised, Llama 3.1's special tokens at the end. Text of any amount is read once, in bounded
    memory. The folder holds a tokenizer.model and a tokenizer.json with equal ids.

    The corpus is .txt, .jsonl (or .json) and .parquet files; all but .parquet may have .gz or .zst
    after it. A language before it weighs it against the others.

    Example: llama-jax tokenizer train en=web/en de=web/de 'th=th/**/*.jsonl' --output tokenizer-32k

    Args:
      corpus: LANGUAGE=WHERE or only where: files, folders, or patterns in quotes.
      output: a new folder.
      vocab_size: all tokens, special ones included.
      temperature: a language with n characters counts as n^(1/temperature): 1 leaves the languages
        as large as they are, inf makes them equal.
      special_tokens: names of your own, in place of as many reserved ones of Llama 3.1's.
      num_special_tokens: how many of Llama 3.1's 256: the 12 that have a meaning come first.
      character_coverage: share of the text whose characters get tokens; the rarest are left to
        bytes.
      chat_template: put Llama 3.1's chat template beside it, or none.
      text_field: the JSON field or Parquet column that holds the text.
      on_error: what a damaged record does: end the work, or be counted and left out.
      seed: of the sample that is taken where there are too many different words.
      quiet: print nothing but errors.
    """
    from train.tokenizer.train_tokenizer import TokenizerSettings, train_tokenizer

    settings = TokenizerSettings(
        vocab_size=vocab_size,
        num_special_tokens=num_special_tokens,
        own_special_tokens=special_tokens,
        temperature=temperature,
        character_coverage=character_coverage,
        seed=seed,
        chat_template=chat_template,
    )
    with advising_space(output, goes_on="from the beginning"):
        card = train_tokenizer(
            corpus,
            settings,
            output=output,
            text_field=text_field,
            on_error=on_error,
            quiet=quiet,
        )
    if quiet:
        return
    for name, language in card["languages"].items():
        sampled = "" if language["sampled"] == 1 else f" in a sample of {language['sampled']:.3%}"
        print(
            f"{name}: {language['num_characters']:,} characters, "
            f"{language['num_distinct_words']:,} different words{sampled}, share "
            f"{language['share']:.1%}; left out: {language['num_skipped']:,} damaged records"
        )
        for complaint in language["complaints"]:
            print(f"left out: {complaint}", file=sys.stderr)
    print(f"{output}: {vocab_size:,} tokens, hash {card['tokenizer_sha256'][:16]}")
