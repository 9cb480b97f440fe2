"""Whether a stage may end: a decision from numbers, and nothing else.

Llama 3 lengthened its context when the model had "recovered completely" on short texts and found
needles at the new length "perfectly" (arXiv 2407.21783, section 3.4.2). The numbers for both are in
the run's config.
"""

from dataclasses import dataclass
from typing import Literal

from train.config import Gate

Verdict = Literal["pass", "extra", "continue", "stop"]


@dataclass(frozen=True)
class GateDecision:
    """Attributes:
    verdict: `pass`, or train on the extra tokens and try again (`extra`), or, after the last round,
      go to the next stage all the same (`continue`) or end the run with an error (`stop`).
    reason: one line with the numbers, for the log and the error.
    """

    verdict: Verdict
    reason: str


def decide_gate(
    gate: Gate,
    *,
    short_loss: float,
    baseline: float,
    needle_accuracy: float,
    rounds_done: int,
) -> GateDecision:
    """What follows from the numbers at the end of a stage.

    Args:
      short_loss: of the evaluation set `gate.short_set` now, in nats a token.
      baseline: the same before the stage, with the RoPE settings of before.
      needle_accuracy: share of the needles found in rows of the stage's length.
      rounds_done: how often the stage has been prolonged.

    A loss that is not a number passes no gate.
    """
    increase = short_loss - baseline
    recovered = increase <= gate.max_loss_increase
    found = needle_accuracy >= gate.needle_accuracy
    reason = (
        f"{gate.short_set} loss {short_loss:.4f}, {increase:+.4f} from {baseline:.4f} "
        f"(at most {gate.max_loss_increase:+g}); needles found {needle_accuracy:.1%} "
        f"(at least {gate.needle_accuracy:.1%}); round {rounds_done} of {gate.max_extra_rounds}"
    )
    if recovered and found:
        return GateDecision("pass", reason)
    if rounds_done < gate.max_extra_rounds:
        return GateDecision("extra", reason)
    return GateDecision("stop" if gate.on_failure == "stop" else "continue", reason)
