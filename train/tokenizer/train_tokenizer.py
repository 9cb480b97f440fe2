"""A corpus to a tokenizer's folder: what `load_tokenizer`, transformers and sentencepiece read.

tokenizer.model          SentencePiece's
tokenizer.json           the same for the `tokenizers` library, with equal ids
tokenizer_config.json, special_tokens_map.json, generation_config.json    which token is what
card.json                of what it was made and how
"""

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_jax.chat.llama31_template import LLAMA_31_TEMPLATE
from llama_jax.checkpoints.staging import staged_folder
from llama_jax.errors import InputError
from llama_jax.json_file import write_json
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from llama_jax.tokenizers.training.language_weights import language_shares, weighted_counts
from llama_jax.tokenizers.training.sentencepiece_to_huggingface import sentencepiece_to_huggingface
from llama_jax.tokenizers.training.sentencepiece_training import train_sentencepiece
from llama_jax.tokenizers.training.special_tokens import special_tokens
from train.output_folder import check_output_folder
from train.tokenizer.corpus import corpus_by_language
from train.tokenizer.count_corpus import CountedLanguage, count_corpus

CARD_FILE = "card.json"
_VERSIONS_OF = ("llama-jax", "sentencepiece", "numpy")
# A tokenizer.json of 32,000 tokens has 5 MB, and a merge or two for each token.
_BYTES_PER_TOKEN = 400


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """What a tokenizer depends on besides its corpus.

    Attributes:
      vocab_size: all tokens.
      num_special_tokens: Llama 3.1's, at the end.
      own_special_tokens: names in place of as many of its reserved ones.
      temperature: of the languages' shares; see language_weights.py.
      character_coverage: see `train_sentencepiece`.
      seed: of the sample of a corpus with too many different words.
      chat_template: `llama31`, or `none`.
    """

    vocab_size: int
    num_special_tokens: int
    own_special_tokens: tuple[str, ...]
    temperature: float
    character_coverage: float
    seed: int
    chat_template: str

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise InputError(f"--temperature must be at least 1, not {self.temperature}")
        if not 0.9 <= self.character_coverage <= 1:
            raise InputError(
                f"--character-coverage must be from 0.9 to 1, not {self.character_coverage}"
            )
        if self.seed < 0:
            raise InputError(f"--seed must be at least 0, not {self.seed}")
        least = self.num_special_tokens + 257
        if self.vocab_size <= least:
            raise InputError(
                f"--vocab-size must be more than {least} (257 for bytes and <unk>, "
                f"{self.num_special_tokens} special tokens), not {self.vocab_size}"
            )


def train_tokenizer(
    inputs: Sequence[str],
    settings: TokenizerSettings,
    *,
    output: str | Path,
    text_field: str = "text",
    on_error: str = "stop",
    quiet: bool = True,
) -> dict[str, Any]:
    """Makes the folder `output`, which must not exist or be empty; the card of it.

    Args:
      inputs: files, folders or patterns, each perhaps with a language before it (corpus.py).
      text_field, on_error, quiet: see `count_corpus`.

    Raises `InputError`, naming file, record or argument.
    """
    output = Path(output)
    check_output_folder(output)
    special = special_tokens(settings.num_special_tokens, own=settings.own_special_tokens)
    corpus = corpus_by_language(inputs)
    with staged_folder(output, num_bytes=settings.vocab_size * _BYTES_PER_TOKEN) as folder:
        counted = count_corpus(
            corpus, text_field=text_field, on_error=on_error, seed=settings.seed, quiet=quiet
        )
        languages = {name: language.words for name, language in counted.items()}
        shares = language_shares(
            {name: words.num_characters for name, words in languages.items()},
            temperature=settings.temperature,
        )
        model = train_sentencepiece(
            weighted_counts(languages, shares=shares),
            vocab_size=settings.vocab_size,
            special_tokens=special,
            character_coverage=settings.character_coverage,
        )
        template = LLAMA_31_TEMPLATE if settings.chat_template == "llama31" else None
        files = sentencepiece_to_huggingface(model, chat_template=template)
        for name, content in {"tokenizer.model": model, **files}.items():
            (folder / name).write_bytes(content)
        card = {
            "tokenizer_sha256": tokenizer_hash(load_tokenizer(folder)),
            **dataclasses.asdict(settings),
            "text_field": text_field,
            "on_error": on_error,
            "languages": _describe(counted, shares),
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
        }
        write_json(folder / CARD_FILE, card)
    return card


def _describe(
    counted: Mapping[str, CountedLanguage], shares: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "share": shares[name],
            "num_characters": language.words.num_characters,
            "num_distinct_words": len(language.words.counts),
            "sampled": language.words.rate,
            "num_skipped": language.num_skipped,
            "complaints": list(language.complaints),
            "files": [file._asdict() for file in language.files],
        }
        for name, language in counted.items()
    }
