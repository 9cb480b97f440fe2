"""Rounds whose steps are small programs: each writes a file from those before it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.rounds.post_training import PostTraining, Round
from train.rounds.step import Step

# `python -m append OUTPUT TEXT INPUT ...`: the inputs, one after another, and the text. Where there
# is a file `slowly`, it says so, notes its process and waits.
APPEND = """
import os, signal, sys, time
from pathlib import Path
output, text, *inputs = sys.argv[1:]
print("reads", *inputs)
if Path("fails").exists() and text in Path("fails").read_text():
    print("error: cannot append " + text, file=sys.stderr)
    sys.exit(2)
if Path("slowly").exists() and text in Path("slowly").read_text():
    Path(output + ".partial").write_text("half")
    print("half of it", flush=True)
    Path("pid").write_text(str(os.getpid()))
    def saved(number, frame):
        Path("saved").write_text(signal.Signals(number).name)
        sys.exit(128 + number)
    signal.signal(signal.SIGINT, saved)
    signal.signal(signal.SIGTERM, saved)
    time.sleep(60)
Path(output).write_text("".join(Path(name).read_text() for name in inputs) + text)
"""
# `python -m measure OUTPUT INPUT`: numbers in the form of `llama-jax evaluate`.
MEASURE = """
import json, sys
from pathlib import Path
share = len(Path(sys.argv[2]).read_text()) / 100
metric = {"mean": share, "standard_error": 0.01}
part = {"questions": 100, "failed": 0, "metrics": {"accuracy": metric}}
Path(sys.argv[1]).write_text(json.dumps({"tasks": {"length": part}}))
"""


@dataclass(frozen=True)
class Letters(PostTraining):
    """Each round writes down the policy, what is new in it, and how long that is.

    Attributes:
      new: of each round.
    """

    new: str = "b"

    def round_steps(self, round: Round) -> Sequence[Step]:
        sampled, policy, numbers = map(round.path, ("sampled", "policy", "numbers/results.json"))
        append = ("python", "-m", "append")
        return (
            Step("sample", (*append, sampled, f"{round.number}", round.policy), outputs=(sampled,)),
            Step("tune", (*append, policy, self.new, sampled), outputs=(policy,)),
            Step(
                "measure",
                ("python", "-m", "measure", numbers, policy),
                outputs=(numbers,),
                results=numbers,
            ),
        )


def letters() -> Letters:
    """Two rounds."""
    return Letters(base="base", rounds=2)


def write_programs(folder: Path) -> None:
    """The programs of the steps, and the base model."""
    (folder / "append.py").write_text(APPEND)
    (folder / "measure.py").write_text(MEASURE)
    (folder / "base").write_text("a")


def command(*arguments: str, function: str = "letters") -> list[str]:
    """`llama-jax post-train` of a function here."""
    run = f"{Path(__file__).resolve()}:{function}"
    return [sys.executable, "-m", "llama_jax", "post-train", run, *arguments]
