"""The steps suite: prefill and decode of `Generator`, ours and transformers', by themselves.

Weights are the same (exported to a Hugging Face folder for transformers), and so are prompts and
number of steps. Each side runs in each dtype; the ratio is between the best of each. Repetitions
alternate between the sides, and the fastest one counts: what else runs on the machine only ever
adds time. Decoding is also given as the fraction of the measured memory bandwidth (weights and
cache read once a step), prefill as the fraction of the measured matrix-product rate.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from infer.benchmark.peaks import Peaks
    from infer.benchmark.steps_sides import Side
    from llama_jax.config import ModelConfig


@dataclass(frozen=True)
class Case:
    """One workload: `prefill` counts the prompt's tokens, `decode` the new ones."""

    kind: Literal["prefill", "decode"]
    batch_size: int
    prompt_length: int
    num_steps: int

    def __str__(self) -> str:
        if self.kind == "prefill":
            return f"prefill {self.batch_size}x{self.prompt_length}"
        return f"decode, batch {self.batch_size}"

    @property
    def num_tokens(self) -> int:
        return self.batch_size * (self.prompt_length if self.kind == "prefill" else self.num_steps)


CASES = (
    Case("prefill", 4, 512, 0),
    Case("decode", 1, 128, 64),
    Case("decode", 8, 128, 64),
    Case("decode", 32, 128, 64),
)


def measure_steps(
    path: Path,
    huggingface: Path,
    *,
    dtypes: Sequence[str],
    peaks: "Peaks",
    repetitions: int,
    quiet: bool,
) -> dict[str, Any]:
    """The report's rows and ratios.

    Args:
      path: the checkpoint.
      huggingface: the same weights as a Hugging Face folder.
    """
    config, sides = _sides(path, huggingface, dtypes)
    measured = measure(config, sides, CASES, repetitions=repetitions, quiet=quiet)
    return _with_fractions(config, measured, peaks)


def measure(
    config: "ModelConfig",
    sides: "Sequence[Side]",
    cases: Sequence[Case],
    *,
    repetitions: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Seconds of every repetition for every case and side, after one run to warm up."""
    rng = np.random.default_rng(0)
    rows = []
    for case in cases:
        prompts = rng.integers(0, config.vocab_size, (case.batch_size, case.prompt_length))
        seconds: list[list[float]] = [[] for _ in sides]
        for repetition in range(-1, repetitions):
            for side, durations in zip(sides, seconds, strict=True):
                prefill, decode = side.run(prompts, case.num_steps)
                if repetition >= 0:
                    durations.append(prefill if case.kind == "prefill" else decode)
        for side, durations in zip(sides, seconds, strict=True):
            rows.append(
                {
                    "case": case,
                    "side": side.name,
                    "dtype": side.dtype,
                    "weight_bytes": side.weight_bytes,
                    "seconds": durations,
                    "tokens_per_second": case.num_tokens / min(durations),
                }
            )
            if not quiet:
                rate = rows[-1]["tokens_per_second"]
                print(f"{case}: {side.name}, {side.dtype}: {rate:,.1f} tokens/s", file=sys.stderr)
    return rows


def _sides(
    path: Path, huggingface: Path, dtypes: Sequence[str]
) -> "tuple[ModelConfig, list[Side]]":
    """All sides, in this process."""
    import torch

    from infer.benchmark.steps_sides import OurSide, TransformersSide
    from infer.benchmark.transformers_contestants import load_transformers
    from llama_jax.checkpoints.load import load_checkpoint

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sides: list[Side] = []
    for dtype in dtypes:
        config, params = load_checkpoint(path, dtype=dtype, stacked=False)
        sides.append(OurSide(config, params, dtype=dtype))
        model = load_transformers(huggingface, dtype)
        sides += [
            TransformersSide(model, dtype=dtype, cache=cache) for cache in ("dynamic", "static")
        ]
    return config, sides


def _with_fractions(
    config: "ModelConfig", measured: list[dict[str, Any]], peaks: "Peaks"
) -> dict[str, Any]:
    """The rows with their fraction of the machine's peak, and the ratio of bests per case."""
    from llama_jax.costs import forward_flops_per_token, kv_bytes_per_token

    rows = []
    for row in measured:
        case, dtype, seconds = row["case"], np.dtype(row["dtype"]), min(row["seconds"])
        if case.kind == "prefill":
            keys = (case.prompt_length + 1) / 2
            # The head is computed for the last token only.
            head = 2 * config.vocab_size * config.model_dim
            flops = case.num_tokens * (forward_flops_per_token(config, keys) - head)
            fraction = flops / seconds / peaks.flops[row["dtype"]]
        else:
            keys = case.batch_size * (case.prompt_length + (case.num_steps + 1) / 2)
            step_bytes = row["weight_bytes"] + keys * kv_bytes_per_token(config, dtype)
            fraction = case.num_steps * step_bytes / seconds / peaks.bytes
        rows.append({**row, "case": str(case), "fraction_of_peak": fraction})
    ratios = {}
    for name in dict.fromkeys(row["case"] for row in rows):
        ours, theirs = (
            max(
                row["tokens_per_second"]
                for row in rows
                if row["case"] == name and (row["side"] == "llama-jax") is is_ours
            )
            for is_ours in (True, False)
        )
        ratios[name] = ours / theirs
    return {"rows": rows, "ratio_of_bests": ratios}
