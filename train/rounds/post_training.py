"""What post-training is: rounds of steps, written down as a frozen dataclass with two methods.

Llama 3 has six rounds (arXiv 2407.21783, section 4.1.6): in each, the model of the round before
answers prompts, a reward model trained on all preferences so far chooses among the answers, and the
*pretrained* model is tuned on the chosen ones and then with DPO on the latest preferences. What a
round does is the config's to say: `round_steps` returns its command lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.rounds.step import Step


@dataclass(frozen=True)
class Round:
    """Where a round works, and with which model.

    Attributes:
      number: from 1; 0 is the opening, before the first round.
      policy: the checkpoint that answers in this round: the model of the round before.
      output: the folder of all rounds.
    """

    number: int
    policy: str
    output: Path

    @property
    def name(self) -> str:
        """Of its folder in `output`, and as `--until` calls it."""
        return f"round-{self.number}"

    def path(self, name: str, *, of: int | None = None) -> str:
        """`name` in the folder of this round, or of the round with the number `of`."""
        number = self.number if of is None else of
        return str(self.output / f"round-{number}" / name)

    def so_far(self, name: str) -> list[str]:
        """`name` in the folders of this round and of all before it, without the opening."""
        return [self.path(name, of=number) for number in range(1, self.number + 1)]


@dataclass(frozen=True)
class PostTraining(ABC):
    """Rounds of post-training. A config is a frozen dataclass derived from this one: its fields are
    options of the command line, its methods say what is run, and depend on nothing but the fields
    and the round.

    Attributes:
      base: the pretrained checkpoint; without an opening also the policy of round 1.
      rounds: how many.
      launch: command and what stands before it on a machine of several hosts: `train "srun --nodes
        8" batch srun`. Commands that are not named run on this host alone.
    """

    base: str
    rounds: int
    launch: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    def opening(self, opening: Round) -> Sequence[Step]:
        """What comes before the first round, in a folder `round-0`: none by default. With steps,
        the model they end with is the policy of round 1."""
        return ()

    @abstractmethod
    def round_steps(self, round: Round) -> Sequence[Step]:
        """The steps of one round, in order."""

    def model_of(self, round: Round) -> str:
        """The checkpoint that a round, or the opening, ends with."""
        return round.path("policy")
