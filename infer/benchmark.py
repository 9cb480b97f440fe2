"""`llama-jax bench infer`: prefill and decode, ours and transformers', in one run on one machine.

Weights are the same (exported to a Hugging Face folder for transformers), and so are prompts and
number of steps. Each side runs in each dtype; the ratio is between the best of each. Repetitions
alternate between the sides, and the fastest one counts: what else runs on the machine only ever
adds time. Decoding is also given as the fraction of the measured memory bandwidth (weights and
cache read once a step), prefill as the fraction of the measured matrix-product rate.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from llama_jax.errors import InputError
from llama_jax.machine_description import describe_machine

if TYPE_CHECKING:
    from infer.benchmark_sides import Side
    from llama_jax.config import ModelConfig

_DTYPES = ("float32", "bfloat16")
_PACKAGES = ("jax", "jaxlib", "torch", "transformers", "numpy")


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


def bench_infer(
    model: tyro.conf.Positional[str],
    *,
    output: Path | None = None,
    repetitions: int = 3,
    quiet: bool = False,
) -> None:
    """Measures prefill and decode against transformers on this machine's CPU.

    Example: llama-jax bench infer SmolLM2-135M-Instruct.Q4_1.gguf --output result.json

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      output: JSON file for all numbers.
      repetitions: of each measurement, the sides alternating.
      quiet: print the table only.
    """
    if repetitions < 1:
        raise InputError(f"--repetitions must be at least 1, not {repetitions}")
    if output is not None and not output.resolve().parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist")
    from llama_jax.checkpoints.huggingface_repo import resolve_source

    path = resolve_source(model)
    with tempfile.TemporaryDirectory() as folder:
        config, sides = _sides(path, Path(folder) / "hf")
        measured = measure(config, sides, CASES, repetitions=repetitions, quiet=quiet)
    result = {
        "command": f"llama-jax bench infer {path.name} --repetitions {repetitions}",
        "model": path.name,
        "machine": describe_machine(_PACKAGES),
        **_with_fractions(config, measured),
    }
    _print(result)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


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


def _sides(path: Path, folder: Path) -> "tuple[ModelConfig, list[Side]]":
    """All contestants; `folder` is where the weights go for transformers."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise InputError(f"bench needs {error.name}: pip install 'llama-jax[test]'") from error
    import jax

    from infer.benchmark_sides import OurSide, TransformersSide
    from llama_jax.checkpoints.convert import convert
    from llama_jax.checkpoints.load import load_checkpoint

    if jax.default_backend() != "cpu":
        raise InputError("bench infer compares on the CPU: set JAX_PLATFORMS=cpu")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    convert(path, folder, to="hf", quiet=True, say=lambda line: None)
    sides: list[Side] = []
    for dtype in _DTYPES:
        config, params = load_checkpoint(path, dtype=dtype, stacked=False)
        sides.append(OurSide(config, params, dtype=dtype))
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).eval()
        sides += [
            TransformersSide(model, dtype=dtype, cache=cache) for cache in ("dynamic", "static")
        ]
    return config, sides


def _with_fractions(config: "ModelConfig", measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with their fraction of the machine's peak, and the ratio of bests per case."""
    from llama_jax.costs import forward_flops_per_token, kv_bytes_per_token
    from llama_jax.machine_roofline import matmul_rate, read_bandwidth

    peak_bytes = read_bandwidth()
    peak_flops = {dtype: matmul_rate(dtype) for dtype in _DTYPES}
    rows = []
    for row in measured:
        case, dtype, seconds = row["case"], np.dtype(row["dtype"]), min(row["seconds"])
        if case.kind == "prefill":
            keys = (case.prompt_length + 1) / 2
            # The head is computed for the last token only.
            head = 2 * config.vocab_size * config.model_dim
            flops = case.num_tokens * (forward_flops_per_token(config, keys) - head)
            fraction = flops / seconds / peak_flops[row["dtype"]]
        else:
            keys = case.batch_size * (case.prompt_length + (case.num_steps + 1) / 2)
            step_bytes = row["weight_bytes"] + keys * kv_bytes_per_token(config, dtype)
            fraction = case.num_steps * step_bytes / seconds / peak_bytes
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
    return {
        "peak_bytes_per_second": peak_bytes,
        "peak_flops_per_second": peak_flops,
        "rows": rows,
        "ratio_of_bests": ratios,
    }


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "side", "dtype", "tokens/s", "of peak", "ratio of bests", box=None)
    for row in result["rows"]:
        table.add_row(
            row["case"],
            row["side"],
            row["dtype"],
            f"{row['tokens_per_second']:,.1f}",
            f"{row['fraction_of_peak']:.0%}",
            f"{result['ratio_of_bests'][row['case']]:.2f}" if row["side"] == "llama-jax" else "",
        )
    console = Console()
    console.print(table)
    flops = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s {dtype}"
        for dtype, rate in result["peak_flops_per_second"].items()
    )
    console.print(f"peaks: {result['peak_bytes_per_second'] / 1e9:.1f} GB/s read, {flops}")
