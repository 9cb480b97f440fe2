"""The offline suite's rows of a report: rates, ratios, fractions of what the machine can.

The job costs so many floating-point operations and, with all rows in one batch, at least so many
bytes: the weights and the cache once a step. Both are of the job, whatever a side computes besides
(padding, dead slots), so that a fraction says how near a side comes to the best possible.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infer.benchmark.offline import Measured, rate, same_tokens
from infer.benchmark.peaks import Peaks
from infer.benchmark.workload import Workload
from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token, kv_bytes_per_token

OURS = "llama-jax"


def job_flops(config: ModelConfig, workload: Workload) -> float:
    """Floating-point operations of the job; the head is needed at new tokens only."""
    head = 2 * config.vocab_size * config.model_dim
    total = 0.0
    for prompt in workload.prompts:
        # The last new token is never computed with.
        tokens = len(prompt) + workload.new_tokens - 1
        total += tokens * (forward_flops_per_token(config, (tokens + 1) / 2) - head)
    return total + workload.num_new_tokens * head


def job_bytes(
    config: ModelConfig, workload: Workload, *, weight_bytes: int, dtype: np.dtype
) -> float:
    """Bytes that decoding reads at least: weights once a step, each row's keys and values."""
    keys = sum(
        workload.new_tokens * (len(prompt) + (workload.new_tokens - 1) / 2)
        for prompt in workload.prompts
    )
    return workload.new_tokens * weight_bytes + keys * kv_bytes_per_token(config, dtype)


def offline_report(
    config: ModelConfig,
    workload: Workload,
    measured: Sequence[Measured],
    peaks: Peaks,
) -> dict[str, Any]:
    """Rows, and ratios of ours to each peer: in each dtype, and between the best of each."""
    flops = job_flops(config, workload)
    rows = []
    for result in measured:
        row: dict[str, Any] = {"side": result.entry.side, "dtype": result.entry.dtype}
        rows.append(row)
        if result.error is not None:
            row["error"] = result.error
            continue
        seconds = min(result.seconds)
        least_bytes = job_bytes(
            config,
            workload,
            weight_bytes=result.weight_bytes,
            dtype=np.dtype(result.entry.dtype),
        )
        row |= {
            "tokens_per_second": rate(workload, result),
            "seconds": result.seconds,
            "settings": dict(result.variant),
            "trials": [{**variant, "seconds": taken} for variant, taken in result.trials],
            "weight_bytes": result.weight_bytes,
            "same_tokens": same_tokens(result.tokens, measured[0].tokens),
            "fraction_of_flops": flops / seconds / peaks.flops[result.entry.dtype],
            "fraction_of_bandwidth": least_bytes / seconds / peaks.bytes,
        }
    return {
        "workload": workload.describe(),
        "job_flops": flops,
        "rows": rows,
        "ratios": _ratios(rows),
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Peer -> dtype or `best` -> our tokens per second divided by the peer's."""
    rates: dict[str, dict[str, float]] = {}
    for row in rows:
        if "error" not in row:
            rates.setdefault(row["side"], {})[row["dtype"]] = row["tokens_per_second"]
    for of_side in rates.values():
        of_side["best"] = max(of_side.values())
    ours = rates.pop(OURS)
    return {
        side: {name: ours[name] / of_peer[name] for name in of_peer if name in ours}
        for side, of_peer in rates.items()
    }
