"""Which sampling a job needs compiled, by the fields that its rows have.

A field that turns out to do nothing costs a program that nobody calls; one that is missing here
would fail its row, which the tests watch for.
"""

from collections.abc import Mapping
from enum import IntFlag
from typing import Any

from infer.engine.settings import ADJUSTED, EVERYTHING, GREEDY_ONLY, SAMPLED
from infer.sampling import SamplingMode

_ADJUSTING = (
    "allowed_token_ids",
    "frequency_penalty",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "logit_bias",
    "presence_penalty",
    "repetition_penalty",
    "response_format",
    "structured_outputs",
    "tool_choice",
)


class Needs(IntFlag):
    """What the sampling of a row may need."""

    DRAWS = 1
    ADJUSTS = 2
    LOGPROBS = 4


def needs_of(body: Mapping[str, Any]) -> Needs:
    """Of the row with this body. Without a temperature the checkpoint's decides, which is not known
    yet, and may draw."""
    needs = Needs(0)
    if body.get("temperature") != 0:
        needs |= Needs.DRAWS
    if any(body.get(name) is not None for name in _ADJUSTING):
        needs |= Needs.ADJUSTS
    if body.get("logprobs") not in (None, False) or body.get("top_logprobs") is not None:
        needs |= Needs.LOGPROBS
    return needs


def modes_for(needs: Needs) -> tuple[SamplingMode, ...]:
    """What to compile for rows that together need this, the cheap ones first."""
    modes = [GREEDY_ONLY]
    if needs & Needs.DRAWS:
        modes.append(SAMPLED)
    if needs & Needs.ADJUSTS:
        modes.append(ADJUSTED)
    if needs & Needs.LOGPROBS:
        modes.append(EVERYTHING)
    return tuple(modes)
