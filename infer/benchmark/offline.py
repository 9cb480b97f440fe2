"""The offline suite: how fast each side answers one job of many prompts.

Every side answers the same prompts with the same weights, greedily, the same number of new tokens
each, whatever they are. The clock runs from handing over all prompts to having all tokens; loading,
compiling and a warm-up come before it. Where a side has settings to choose among, each runs once
and the fastest goes on. Repetitions alternate between the sides, and the fastest one counts: what
else runs on the machine only ever adds time.

That all did the same work shows in the tokens: `same_tokens` is the share of new tokens, up to the
first difference in each row, that a side has in common with the first side. (Greedy choices between
two almost equal logits differ with the order of additions; after that, the rows are other texts.)
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from infer.benchmark.contestant import Entry, Outcome
from infer.benchmark.contestant_process import ContestantError, ContestantProcess
from infer.benchmark.workload import Workload


@dataclass
class Measured:
    """What one side did.

    Attributes:
      seconds: of each run with `variant`, its trial included.
      trials: seconds of each variant, as (variant, seconds).
      error: why it could not take part, in its own words; the rest is then empty.
    """

    entry: Entry
    weight_bytes: int = 0
    variant: Mapping[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    trials: list[tuple[Mapping[str, Any], float]] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    error: str | None = None


def measure_offline(
    entries: Sequence[Entry], workload: Workload, *, repetitions: int, quiet: bool
) -> list[Measured]:
    """Runs all sides; a side that fails is measured no further, and says why.

    Raises:
      ContestantError: one that is not optional failed.
    """
    say = (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    results = [Measured(entry) for entry in entries]
    with ExitStack() as stack:
        running: list[tuple[Measured, ContestantProcess]] = []
        for result in results:
            entry = result.entry
            try:
                process = stack.enter_context(ContestantProcess(entry))
                process.warm_up(workload)
                _choose_variant(result, process, workload)
            except ContestantError as error:
                _fail(result, error)
                say(f"{_name(entry)}: {error}")
                continue
            result.weight_bytes = process.weight_bytes
            running.append((result, process))
            best = f" with {_words(result.variant)}" if len(entry.variants) > 1 else ""
            say(f"{_name(entry)}: {rate(workload, result):,.1f} tokens/s{best}")
        for _ in range(repetitions - 1):
            for result, process in running:
                if result.error is not None:
                    continue
                try:
                    outcome = process.run(workload, **result.variant)
                except ContestantError as error:
                    _fail(result, error)
                    continue
                result.seconds.append(outcome.seconds)
    return results


def _choose_variant(result: Measured, process: ContestantProcess, workload: Workload) -> None:
    best: Outcome | None = None
    for variant in result.entry.variants:
        outcome = process.run(workload, **variant)
        result.trials.append((variant, outcome.seconds))
        if best is None or outcome.seconds < best.seconds:
            best, result.variant = outcome, variant
    result.seconds, result.tokens = [best.seconds], best.tokens


def _fail(result: Measured, error: ContestantError) -> None:
    if not result.entry.optional:
        raise ContestantError(f"{_name(result.entry)}: {error}") from None
    result.error = str(error)


def rate(workload: Workload, result: Measured) -> float:
    """New tokens per second of the fastest run."""
    return workload.num_new_tokens / min(result.seconds)


def same_tokens(tokens: list[list[int]], reference: list[list[int]]) -> float:
    """Share of new tokens before the first difference in each row."""
    same = total = 0
    for row, other in zip(tokens, reference, strict=True):
        different = (i for i, (a, b) in enumerate(zip(row, other, strict=True)) if a != b)
        same += next(different, len(row))
        total += len(row)
    return same / total


def _name(entry: Entry) -> str:
    return f"{entry.side}, {entry.dtype}"


def _words(variant: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in variant.items())
