"""What takes part in the offline comparison, and what it reports of one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from infer.benchmark.workload import Workload


@dataclass(frozen=True)
class Outcome:
    """One run of a whole workload.

    Attributes:
      seconds: from the first prompt handed over to the last token received.
      tokens: the new ids of each prompt, in the order of the prompts.
    """

    seconds: float
    tokens: list[list[int]]


class Contestant(Protocol):
    """Something with a model loaded; made in a process of its own (`contestant_process.py`).

    Attributes:
      weight_bytes: of all weights as they are held.
    """

    weight_bytes: int

    def warm_up(self, workload: Workload) -> None:
        """Does whatever is done once: compiles, touches the memory."""
        ...

    def run(self, workload: Workload, **variant: Any) -> Outcome:
        """Answers all prompts greedily, `workload.new_tokens` each, whatever they are."""
        ...


@dataclass(frozen=True)
class Entry:
    """A contestant before it is made.

    Attributes:
      side: what the report calls it.
      dtype: of the weights.
      factory: `module:function`, imported in the contestant's process.
      arguments: of the factory.
      variants: keywords of `run` to choose among: each runs once, and the fastest runs again.
      optional: whether the report goes on without it where it cannot run, and says why.
    """

    side: str
    dtype: str
    factory: str
    arguments: Mapping[str, Any]
    variants: tuple[Mapping[str, Any], ...] = field(default=({},))
    optional: bool = True
