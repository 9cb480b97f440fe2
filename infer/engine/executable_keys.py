"""The names of an engine's programs."""

import dataclasses
from dataclasses import dataclass

from infer.sampling import SamplingMode


@dataclass(frozen=True)
class PrefillKey:
    """A chunk of this length, with log-probabilities of the prompt or without."""

    length: int
    scored: bool

    def __str__(self) -> str:
        return f"{'score' if self.scored else 'prefill'} of {self.length}"


@dataclass(frozen=True)
class DecodeKey:
    """So many rows, what is computed to choose their tokens, and whether they are guessed."""

    num_rows: int
    mode: SamplingMode
    speculates: bool = False

    def __str__(self) -> str:
        parts = dataclasses.asdict(self.mode)
        computed = [name for name, value in parts.items() if value not in (False, None)]
        guessed = ", speculative" if self.speculates else ""
        return f"decode of {self.num_rows}: {', '.join(computed) or 'greedy'}{guessed}"


ExecutableKey = PrefillKey | DecodeKey
