"""Rounds of real commands on a tiny model, which is to answer a letter with exclamation marks."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # for `llama-jax train chat_runs.py:...`

from tests.train.chat_runs import LETTERS, write_data
from train.rounds.post_training import PostTraining, Round
from train.rounds.step import Step

RUNS = Path(__file__).parents[1] / "chat_runs.py"


@dataclass(frozen=True)
class Exclamations(PostTraining):
    """A reward model, sampling, SFT on selected answers too, and DPO on the pairs that the reward
    model tells apart."""

    def opening(self, opening: Round) -> Sequence[Step]:
        return self._sft(opening, [])

    def round_steps(self, round: Round) -> Sequence[Step]:
        questions, answers, scores = "questions.jsonl", round.path("answers.jsonl"), round.path("s")
        chosen, pairs, weights = map(round.path, ("chosen.jsonl", "pairs.jsonl", "dpo/weights"))
        results, policy = round.path("evaluation/results.json"), round.path("policy")
        asked = ("--questions", questions, "--overwrite")
        halfway = round.path("reward-run/checkpoints/000010")
        weights_of_reward, reward = round.path("reward-run/weights"), round.path("reward")
        return (
            self._rows(round, "preferences", "groups", ["groups_train.jsonl"], "--for", "reward"),
            Step(
                "reward-run",
                ("llama-jax", "train", f"{RUNS}:reward_here", "--output", round.path("reward-run"),
                 "--initial-weights", round.path("sft/weights", of=0), "--quiet",
                 "--checkpoint.every-steps", 10, "--checkpoint.keep", 2,
                 "--stages.0.mixture.0.path", round.path("groups")),
                outputs=(halfway, weights_of_reward),
            ),
            Step(
                "reward",
                ("llama-jax", "average", halfway, weights_of_reward, reward, "--overwrite"),
                outputs=(reward,),
            ),
            Step(
                "sample",
                ("llama-jax", "batch", round.policy, questions, answers, "--max-new-tokens", 6,
                 "--no-roofline", "--rows", 4),
                outputs=(answers,),
            ),
            Step(
                "score", ("llama-jax", "score", reward, answers, scores, *asked), outputs=(scores,)
            ),
            Step(
                "select",
                ("llama-jax", "select", answers, *asked, "--scores", scores, "--licence", "none",
                 "--sft", chosen, "--preferences", pairs, "--minimum-gap", 0.1),
                outputs=(chosen, pairs),
            ),
            *self._sft(round, round.so_far("chosen.jsonl")),
            self._rows(round, "preferences", "pairs", ["pairs_train.jsonl", pairs], "--for", "dpo"),
            Step(
                "dpo",
                ("llama-jax", "train", f"{RUNS}:dpo_here", "--output", round.path("dpo"),
                 "--initial-weights", round.path("sft/weights"), "--quiet",
                 "--checkpoint.every-steps", 2,
                 "--stages.0.mixture.0.path", round.path("pairs")),
                outputs=(weights,),
            ),
            Step(
                "average",
                ("llama-jax", "average", round.path("sft/weights"), weights, policy, "--overwrite"),
                outputs=(policy,),
            ),
            Step(
                "evaluate",
                ("llama-jax", "evaluate", policy, questions, "--output", round.path("evaluation"),
                 "--max-new-tokens", 6, "--rows", 4),
                outputs=(results,),
                results=results,
            ),
        )  # fmt: skip

    def model_of(self, round: Round) -> str:
        return round.path("policy" if round.number else "sft/weights")

    def _sft(self, round: Round, files: list[str]) -> list[Step]:
        output = round.path("sft")
        return [
            self._rows(round, "dialogs", "dialogs", ["dialogs_train.jsonl", *files]),
            Step(
                "sft",
                ("llama-jax", "train", f"{RUNS}:sft_here", "--output", output, "--quiet",
                 "--stages.0.mixture.0.path", round.path("dialogs")),
                outputs=(f"{output}/weights",),
            ),
        ]  # fmt: skip

    def _rows(self, round: Round, kind: str, name: str, files: list[str], *options: str) -> Step:
        output = round.path(name)
        command = ("llama-jax", "data", kind, *files, *options, "--tokenizer", "tokenizer",
                   "--row-length", 384, "--output", output, "--overwrite",
                   "--workers", 1)  # fmt: skip
        return Step(name, command, outputs=(output,))


def exclamations() -> Exclamations:
    """One round, and what comes before it."""
    return Exclamations(base="tokenizer", rounds=1)


def write(folder: Path) -> None:
    """Data of `chat_runs.py`, and questions whose answers a program marks."""
    write_data(folder)
    rows = [
        {
            "custom_id": letter,
            "messages": [{"role": "user", "content": letter}],
            "n": 4,
            "temperature": 1.0,
            "metadata": {"verifier": "exact", "answer": f"{letter}!!"},
        }
        for letter in LETTERS[::2]
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
