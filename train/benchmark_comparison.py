"""Our side of `llama-jax bench train` beside its peer, and both beside the machine's peak."""

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token
from llama_jax.kernels.kernel_log import kernels_told
from train.benchmark_peer import measure_peer
from train.config import RunConfig
from train.measure_training import measure_training

# The side of our own step without its fast paths.
BASELINE = "llama-jax, plain"


def compare(
    sides: dict[str, RunConfig],
    checkpoint: Path | None,
    batch: dict[str, np.ndarray],
    *,
    dtypes: Sequence[str],
    num_steps: int,
    peer: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Rows of all sides and dtypes, the peaks they are held against, and the ratios.

    Args:
      sides: `llama-jax` and, where it is asked for, `BASELINE`: ways to make the same step.
    """
    run = sides["llama-jax"]
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        if not quiet:
            rate = row["tokens_per_second"]
            print(f"{row['side']}, {row['dtype']}: {rate:,.1f} tokens/s", file=sys.stderr)

    params = _params(run, checkpoint, always=peer)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "hf"
        if peer:
            from llama_jax.checkpoints.save import save_checkpoint

            save_checkpoint(weights, run.model, params, format="hf")
        for dtype in dtypes:
            for side, way in sides.items():
                ours = dataclasses.replace(way, compute_dtype=dtype)
                with contextlib.nullcontext() if quiet else kernels_told(_tell):
                    measured = measure_training(ours, batch, num_steps=num_steps, params=params)
                add({"side": side, "dtype": dtype, **measured})
            # With bfloat16 products, the peer's weights may be of either dtype.
            for weight_dtype in dict.fromkeys((run.param_dtype, dtype)) if peer else ():
                measured = measure_peer(
                    weights,
                    batch,
                    run.optimizer,
                    compute_dtype=dtype,
                    param_dtype=weight_dtype,
                    num_steps=num_steps,
                )
                add({"dtype": dtype, **measured})
    result = _with_peaks(run.model, batch["tokens"].shape[-1], rows, peer=peer)
    if BASELINE in sides:
        result["ratio_to_plain"] = {
            dtype: _best(rows, dtype, "llama-jax") / _best(rows, dtype, BASELINE)
            for dtype in dict.fromkeys(dtypes)
        }
    return result


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _params(run: RunConfig, checkpoint: Path | None, *, always: bool):
    """Weights that both sides start from; None lets our side draw them where they will lie."""
    if checkpoint is not None:
        from llama_jax.checkpoints.load import load_checkpoint

        return load_checkpoint(checkpoint, dtype=run.param_dtype)[1]
    if not always:
        return None
    import jax
    import jax.numpy as jnp

    from llama_jax.model import init_params

    return init_params(run.model, jax.random.key(run.seed), dtype=jnp.dtype(run.param_dtype))


def _with_peaks(
    config: ModelConfig, row_length: int, rows: list[dict[str, Any]], *, peer: bool
) -> dict[str, Any]:
    """`rows`, their peaks and ratios; a CPU's peak is measured, with the peer's library too."""
    from llama_jax.accelerators import accelerator

    known = accelerator(rows[0]["device_kind"])
    result: dict[str, Any] = {"rows": rows}
    if known is not None:
        result["peak_flops_per_second"] = {"bfloat16": known.bf16_flops}
    elif peer:
        from llama_jax.machine_roofline import matmul_rate

        peaks = {dtype: matmul_rate(dtype) for dtype in {row["dtype"] for row in rows}}
        result["peak_flops_per_second"] = peaks
        for row in rows:
            for name, keys in (("mfu_causal", (row_length + 1) / 2), ("mfu_full", row_length)):
                flops = 3 * forward_flops_per_token(config, keys) * row["tokens_per_second"]
                row[name] = flops / peaks[row["dtype"]]
    if peer:
        result["ratio_of_bests"] = {
            dtype: _best(rows, dtype, "llama-jax") / _best(rows, dtype, *_peers(rows))
            for dtype in dict.fromkeys(row["dtype"] for row in rows)
        }
    return result


def _best(rows: list[dict[str, Any]], dtype: str, *sides: str) -> float:
    return max(
        row["tokens_per_second"] for row in rows if row["dtype"] == dtype and row["side"] in sides
    )


def _peers(rows: list[dict[str, Any]]) -> set[str]:
    return {row["side"] for row in rows} - {"llama-jax", BASELINE}
