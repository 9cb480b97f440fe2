"""Scores that are kept beside the output until it is whole, so that a killed command goes on.

A file for each group of texts, named for their content, the model's and the precision: what any of
them has changed since is scored again.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llama_jax.json_file import read_json
from llama_jax.whole_file import whole_file
from train.scoring.reward_scorer import RewardScorer


class KeptScores:
    """A scorer that remembers.

    Args:
      scorer: scores what is not known.
      folder: made when something is kept.
      key: all that a score depends on besides the text.
    """

    def __init__(self, scorer: RewardScorer, folder: Path, *, key: str) -> None:
        self._scorer, self._folder, self._key = scorer, folder, key

    def __call__(self, texts: Sequence[np.ndarray]) -> list[float]:
        """The score of each of `texts`, as `RewardScorer` gives it."""
        digest = hashlib.sha256(self._key.encode())
        for text in texts:
            digest.update(len(text).to_bytes(8, "little") + text.astype("<i8").tobytes())
        path = self._folder / f"{digest.hexdigest()}.json"
        if path.is_file():
            return read_json(path)["scores"]
        scores = self._scorer(texts)
        self._folder.mkdir(exist_ok=True)
        with whole_file(path) as file:
            file.write(json.dumps({"scores": scores}).encode())
        return scores

    def forget(self) -> None:
        """Removes what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)
