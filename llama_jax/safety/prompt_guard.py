"""Prompt Guard: whether a text tries to take a model over.

Three classes: BENIGN, INJECTION (instructions where there should be none, as in a web page that is
only to be read) and JAILBREAK (an attempt to override what the model was told). Which of them
matter depends on who wrote the text, by the model card's two rules:

    a user's text         may give instructions: unsafe by p(JAILBREAK)
    a third party's text  may not: unsafe by p(INJECTION) + p(JAILBREAK)

A text that is longer than the model's context of 512 is cut into windows that overlap, so that what
stands on a border is seen whole in one of them; the text is as unsafe as its worst window.

No package carries Prompt Guard's weights: see https://huggingface.co/meta-llama/Prompt-Guard-86M.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.safety.deberta_v2 import DebertaConfig, classify, load_classifier
from llama_jax.safety.deberta_v2.classifier import Params
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer

LABELS = ("BENIGN", "INJECTION", "JAILBREAK")
Source = Literal["user", "third_party"]

_SHORTEST = 32  # padded length; longer ones double, so that few shapes are compiled


@dataclass(frozen=True)
class TextScores:
    """What the model thinks of one text.

    Attributes:
      probabilities: float32 `[W, 3]` of each window's classes, in the order of `LABELS`.
    """

    probabilities: np.ndarray

    def risks(self, source: Source) -> np.ndarray:
        """float32 `[W]`, how unsafe each window is for a text of this source."""
        _, injection, jailbreak = self.probabilities.T
        return jailbreak if source == "user" else injection + jailbreak


class PromptGuard:
    """A classifier with its tokenizer.

    Args:
      special_ids: that begin a text, end it, and fill a row up.
      window: tokens of a window, the two special ones at its ends included; None for the model's
        context.
      overlap: tokens that two neighbouring windows share; None for a quarter of a window.
      batch_rows: windows that are classified at once.

    Raises `InputError` for sizes that do not fit, and for a model with other classes.
    """

    def __init__(
        self,
        config: DebertaConfig,
        params: Params,
        tokenizer: Tokenizer,
        *,
        special_ids: tuple[int, int, int],
        window: int | None = None,
        overlap: int | None = None,
        batch_rows: int = 32,
    ):
        if sorted(config.labels) != sorted(LABELS):
            raise InputError(
                f"the classes are {', '.join(config.labels)[:200]}, and Prompt Guard's are "
                f"{', '.join(LABELS)}; give a Prompt Guard checkpoint"
            )
        window = config.context_length if window is None else window
        if not 3 <= window <= config.context_length:
            raise InputError(
                f"window: must be from 3 to the model's context of {config.context_length}, not "
                f"{window}"
            )
        overlap = window // 4 if overlap is None else overlap
        if not 0 <= overlap < window - 2:
            raise InputError(f"overlap: must be from 0 to {window - 3}, not {overlap}")
        if batch_rows < 1:
            raise InputError(f"batch_rows: must be at least 1, not {batch_rows}")
        self._config, self._params, self._tokenizer = config, params, tokenizer
        self._begin, self._end, self._pad = special_ids
        self._window, self._overlap, self._batch_rows = window, overlap, batch_rows
        self._order = [config.labels.index(label) for label in LABELS]

    def encode(self, text: str) -> list[int]:
        """Ids of `text` for `scores`. Raises `InputError` if the tokenizer cannot encode it."""
        return plain_ids(text, self._tokenizer)

    def scores(self, texts: Sequence[Sequence[int]]) -> list[TextScores]:
        """Of each text, given in ids; the windows of all of them are classified together, short
        ones first."""
        windows = [
            (number, window)
            for number, ids in enumerate(texts)
            for window in token_windows(ids, self._window - 2, self._overlap)
        ]
        by_length = sorted(range(len(windows)), key=lambda place: len(windows[place][1]))
        found = np.zeros((len(windows), len(LABELS)), np.float32)
        for start in range(0, len(windows), self._batch_rows):
            places = by_length[start : start + self._batch_rows]
            found[places] = self._classify([windows[place][1] for place in places])
        owners = np.array([number for number, _ in windows])
        return [TextScores(found[owners == number]) for number in range(len(texts))]

    def _classify(self, windows: list[list[int]]) -> np.ndarray:
        """Probabilities, float32 `[len(windows), 3]`."""
        longest = max(map(len, windows)) + 2
        length = min(_SHORTEST << max(0, (longest - 1) // _SHORTEST).bit_length(), self._window)
        num_rows = min(1 << (len(windows) - 1).bit_length(), self._batch_rows)
        tokens = np.full((num_rows, length), self._pad, np.int32)
        mask = np.zeros(tokens.shape, bool)
        mask[:, 0] = True  # a row without a token has no scores
        for row, window in enumerate(windows):
            whole = [self._begin, *window, self._end]
            tokens[row, : len(whole)], mask[row, : len(whole)] = whole, True
        logits = classify(self._params, jnp.asarray(tokens), jnp.asarray(mask), config=self._config)
        return np.asarray(jax.nn.softmax(logits, axis=-1))[: len(windows), self._order]


def load_prompt_guard(
    folder: str | Path,
    *,
    window: int | None = None,
    overlap: int | None = None,
    batch_rows: int = 32,
) -> PromptGuard:
    """The Prompt Guard in the Hugging Face folder `folder`.

    Its tokenizer is `tokenizer.json`, or the `spm.model` of the DeBERTa checkpoints.

    Raises `InputError` that names what is wrong.
    """
    folder = Path(folder)
    config, params = load_classifier(folder)
    has_json = (folder / "tokenizer.json").is_file() or not (folder / "spm.model").is_file()
    tokenizer = load_tokenizer(folder if has_json else folder / "spm.model")
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids and the model only "
            f"{config.vocab_size}; take the tokenizer that the model was published with"
        )
    special_ids = tuple(
        _special_id(folder, tokenizer, role, default)
        for role, default in (("cls", "[CLS]"), ("sep", "[SEP]"), ("pad", "[PAD]"))
    )
    try:
        return PromptGuard(
            config,
            params,
            tokenizer,
            special_ids=special_ids,
            window=window,
            overlap=overlap,
            batch_rows=batch_rows,
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def token_windows(ids: Sequence[int], size: int, overlap: int) -> list[list[int]]:
    """Runs of at most `size` ids that cover all of them, each sharing `overlap` with the one
    before; one empty run of no ids."""
    step = size - overlap
    starts = range(0, max(len(ids) - overlap, 1), step)
    return [list(ids[start : start + size]) for start in starts]


def plain_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of `text`, in which no special token is anything but text.

    A unigram vocabulary lists its special tokens as words, so their names are cut after the first
    character: an attack may well spell them.
    """
    pattern = "|".join(
        f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})"
        for name in tokenizer.special_tokens
        if len(name) > 1
    )
    parts = re.split(pattern, text) if pattern else [text]
    return [token for part in parts if part for token in tokenizer.encode(part)]


def _special_id(folder: Path, tokenizer: Tokenizer, role: str, default: str) -> int:
    path = folder / "tokenizer_config.json"
    given = (read_json(path) if path.is_file() else {}).get(f"{role}_token", default)
    name = given.get("content") if isinstance(given, dict) else given
    if name not in tokenizer.special_tokens:
        raise InputError(
            f"{folder}: the tokenizer has no special token {str(name)[:40]!r}, which a DeBERTa "
            "classifier needs; the files do not belong together"
        )
    return tokenizer.special_tokens[name]
