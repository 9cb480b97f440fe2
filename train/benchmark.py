"""`llama-jax bench train`: real training steps, in tokens a second and shares of the peak.

The step is the loop's own: loss, gradients, clipping, AdamW, remat policy, mesh of the devices at
hand. On a CPU transformers with torch's AdamW does the same steps in the same run, with the same
weights and batch, each side in its better way for a dtype, one after the other. The losses of both
are kept, which shows that they did the same work. `--baseline` measures our own step once more with
plain attention and unquantised products: what the fast paths bring, on this machine.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llama_jax.errors import InputError
from train.benchmark_comparison import BASELINE, compare
from train.benchmark_table import print_table
from train.benchmark_workload import baseline_of, override, packed_batch, run_of
from train.config import RunConfig
from train.measure_training import measure_training, random_batch
from train.run_checks import check_kernels

# What a machine without the command's libraries can call.
__all__ = ["bench_train", "measure_training", "random_batch"]

Dtype = Literal["float32", "bfloat16"]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_PEER_PACKAGES = ("torch", "transformers")


def bench_train(
    model: str,
    /,
    *,
    rows: int | None = None,
    row_length: int | None = None,
    micro_batches: int | None = None,
    data: Path | None = None,
    dtypes: tuple[Dtype, ...] = (),
    param_dtype: Dtype | None = None,
    moment_dtype: Dtype | None = None,
    remat: str | None = None,
    attention: tuple[str, ...] | None = None,
    matmul: str | None = None,
    matmul_implementation: str | None = None,
    baseline: bool = False,
    steps: int = 5,
    peer: bool = True,
    output: Path | None = None,
    quiet: bool = False,
) -> None:
    """Measures training steps on this machine's devices, and on a CPU those of transformers.

    Example: llama-jax bench train smollm2 --rows 4 --row-length 512 --output result.json
      llama-jax bench train 8b --row-length 8192 --rows 1 --matmul fp8_tensorwise --baseline

    Args:
      model: tiny, smollm2, 1b, 3b, 8b or 70b, with random weights; a checkpoint; or the name of a
        run, whose precision, remat policy, mesh and first stage are taken.
      rows: in a step; of the run's first step, or 4.
      row_length: tokens that a row predicts; of the run's first stage, or 512.
      micro_batches: parts of a step; of the run's first step, or 1.
      data: a folder that `data prepare` wrote; random token ids, one document a row, without it.
      dtypes: of activations, one measurement each; the run's, or float32 and bfloat16 on a CPU and
        bfloat16 elsewhere.
      param_dtype: of the weights.
      moment_dtype: of the first moment.
      remat: what the backward pass keeps: none, products, projections, attention or full.
      attention: auto, or implementations in order of preference (as of a run).
      matmul: bfloat16, fp8_tensorwise, fp8_rowwise, fp8_rowwise_bf16_wgrad or int8.
      matmul_implementation: what multiplies 8-bit numbers: auto, xla, cublas, mosaic_gpu, emulate.
      baseline: measure the same step with attention reference and matmul bfloat16 too.
      steps: how many are counted.
      peer: measure transformers too, where the devices are CPUs.
      output: JSON file for all numbers.
      quiet: print the table only.
    """
    for name, value in (("rows", rows), ("row-length", row_length), ("steps", steps),
                        ("micro-batches", micro_batches)):  # fmt: skip
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if output is not None and not output.resolve().parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist")
    import jax

    from llama_jax.machine_description import describe_machine
    from llama_jax.model import REMAT_POLICIES

    if remat is not None and remat not in REMAT_POLICIES:
        raise InputError(f"--remat {remat}: give one of {', '.join(REMAT_POLICIES)}")
    run, checkpoint = run_of(model)
    run = override(
        run,
        param_dtype=param_dtype,
        moment_dtype=moment_dtype,
        remat=remat,
        attention=attention,
        matmul=matmul,
        matmul_implementation=matmul_implementation,
    )
    check_kernels(run)
    shape = _shape(run, rows=rows, row_length=row_length, micro_batches=micro_batches)
    batch = (
        random_batch(run.model.vocab_size, **shape) if data is None else packed_batch(data, **shape)
    )
    on_cpu = jax.default_backend() == "cpu"
    if not dtypes:
        dtypes = (run.compute_dtype,) if run.stages or not on_cpu else ("float32", "bfloat16")
    peer = peer and _peer_is_possible(run, on_cpu, quiet)
    sides = {"llama-jax": run} | ({BASELINE: baseline_of(run)} if baseline else {})
    measured = compare(
        sides, checkpoint, batch, dtypes=dtypes, num_steps=steps, peer=peer, quiet=quiet
    )
    packages = _PACKAGES + (_PEER_PACKAGES if peer else ())
    result = {
        "command": _command(model, run, shape, data=data, dtypes=dtypes, steps=steps, peer=peer)
        + " --baseline" * baseline,
        "model": Path(model).name,
        **shape,
        "data": "random tokens, one document a row" if data is None else data.name,
        "param_dtype": run.param_dtype,
        "moment_dtype": run.optimizer.moment_dtype,
        "remat": run.remat,
        "attention": list(run.attention),
        "matmul": run.matmul,
        "matmul_implementation": run.matmul_implementation,
        "machine": describe_machine(packages),
        **measured,
    }
    print_table(result)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


def _shape(run: RunConfig, **given: int | None) -> dict[str, int]:
    """`rows`, `row_length` and `micro_batches`, from the command line, the run's first stage, or
    neither."""
    shape = {"rows": 4, "row_length": 512, "micro_batches": 1}
    if run.stages:
        stage = run.stages[0]
        shape = {
            "rows": stage.batch[0].rows,
            "row_length": stage.row_length,
            "micro_batches": stage.batch[0].micro_batches,
        }
    shape |= {name: value for name, value in given.items() if value is not None}
    if shape["rows"] % shape["micro_batches"]:
        raise InputError(
            f"--rows {shape['rows']}: must be a multiple of --micro-batches "
            f"{shape['micro_batches']}"
        )
    if shape["row_length"] > run.model.context_length:
        raise InputError(
            f"--row-length {shape['row_length']}: the model takes {run.model.context_length} tokens"
        )
    return shape


def _peer_is_possible(run: RunConfig, on_cpu: bool, quiet: bool) -> bool:
    if not on_cpu:
        if not quiet:
            print("no peer: transformers is measured on CPUs only", file=sys.stderr)
        return False
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the peer needs {error.name}: pip install '.[test]', or give --no-peer"
        ) from error
    return True


def _command(
    model: str,
    run: RunConfig,
    shape: dict[str, int],
    *,
    data: Path | None,
    dtypes: Sequence[str],
    steps: int,
    peer: bool,
) -> str:
    """The command with every choice written out."""
    options = {name.replace("_", "-"): str(value) for name, value in shape.items()}
    options |= {
        "param-dtype": run.param_dtype,
        "moment-dtype": run.optimizer.moment_dtype,
        "remat": run.remat,
        "attention": " ".join(run.attention),
        "matmul": run.matmul,
        "matmul-implementation": run.matmul_implementation,
        "dtypes": " ".join(dtypes),
        "steps": str(steps),
    }
    if data is not None:
        options["data"] = data.name
    words = " ".join(f"--{name} {value}" for name, value in options.items())
    return f"llama-jax bench train {Path(model).name} {words}" + ("" if peer else " --no-peer")
