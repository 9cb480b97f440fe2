"""What the TPU compiler says of attention: cycles of our kernels and of splash attention.

    python tests/benchmarks/tpu_attention.py

Needs libtpu and no TPU; half a minute a target and implementation. Results go to
tests/benchmarks/results/tpu_attention.json. Cycles are bundles executed, counted as
`tpu_bundles.py` says: bundles of each stretch of the kernel times how often this mask runs it. They
leave out waits for memory, and no TPU has run any of this. One row of 8192 tokens, 32 query heads
on 8 key heads of 128 numbers, bfloat16.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tpu_bundles import DUMP_FLAGS, Kernel, read_kernel

from llama_jax.kernels.attention import splash
from llama_jax.kernels.attention.flash_tpu_blocks import (
    DEFAULT_SIZES,
    choose_blocks,
    in_segments,
    ranges,
)
from llama_jax.kernels.attention.implementations import implementation
from llama_jax.kernels.attention.mask import IntervalMask, MaskForm, causal_mask, packed_mask
from llama_jax.machine_description import describe_machine

RESULTS = Path(__file__).parent / "results" / "tpu_attention.json"
# Topology -> cores of a JAX device, multiply-adds a cycle and core, clock in GHz; inferred from
# peak rates, as Google publishes no clocks.
TARGETS = {
    "v5e:2x2": (1, 65536, 1.5),
    "v5p:2x2x1": (2, 65536, 1.75),
    "v6e:2x2": (1, 262144, 1.75),
    "tpu7x:2x2x1": (1, 262144, 2.2),
}
# Name -> implementation, its keywords, flags for libtpu. The last is what MaxText runs with.
IMPLEMENTATIONS = {
    "flash_tpu": ("flash_tpu", {}, ""),
    "splash": ("splash", {}, ""),
    "splash in blocks of 2048": (
        "splash",
        {"block": 2048},
        "--xla_tpu_scoped_vmem_limit_kib=98304",
    ),
}
N, K, T, H = 32, 8, 8192, 128
MASKS = {
    "causal": causal_mask(1, T),
    "8 packed documents": packed_mask(jnp.arange(T)[None] // (T // 8)),
}


def main() -> None:
    if len(sys.argv) > 1:
        return compile_one(*sys.argv[1:])
    jax.config.update("jax_platforms", "cpu")
    results = {"command": "python tests/benchmarks/tpu_attention.py"}
    results |= describe_machine(("jax", "jaxlib", "libtpu"))
    results |= {"query heads": N, "key heads": K, "tokens": T, "head dim": H, "dtype": "bfloat16"}
    results["waits for memory are not counted; nothing ran on a TPU"] = True
    results["targets"] = {target: measure(target) for target in TARGETS}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def measure(target: str) -> dict:
    cores, products, clock = TARGETS[target]
    rows = {}
    for label, (name, keywords, flags) in IMPLEMENTATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            flags = f"{DUMP_FLAGS.format(folder=folder)} {flags}"
            environment = dict(os.environ, LIBTPU_INIT_ARGS=flags, JAX_PLATFORMS="cpu")
            command = [sys.executable, __file__, name, target, json.dumps(keywords)]
            run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            others = json.loads(run.stdout)
            kernels = [read_kernel(Path(folder), part) for part in KERNEL_NAMES[name]]
        row = {"forward": static(kernels[0]), "backward": static(kernels[1])}
        row["other cycles of the compiler's estimate"] = others["cycles"]
        for mask_name, mask in MASKS.items():
            cycles = CYCLES[name](mask, *kernels, **keywords)
            # Visible scores, two products forward and five backward, every core busy.
            least = [x * N * visible_scores(mask) * H / products / cores for x in (2, 5)]
            shared = [
                total / (1 if kernel.on_one_core else cores)
                for total, kernel in zip(cycles, kernels, strict=True)
            ]
            row[mask_name] = {
                way: {
                    "cycles": round(total),
                    "milliseconds": round(total / clock / 1e6, 3),
                    "share of peak": round(floor / total, 3),
                }
                for way, total, floor in zip(("forward", "backward"), shared, least, strict=True)
            }
        rows[label] = row
        print(target, label, json.dumps(row), file=sys.stderr)
    return rows


def static(kernel: Kernel) -> dict:
    return {
        "bundles of a block": kernel.products,
        "matrix products of a block": kernel.matrix_products,
        "bundles before and after a row or a head": [*kernel.before, *kernel.after],
        "bundles of a turn": kernel.rest,
        "uses one core of two": kernel.on_one_core,
        "vmem bytes": kernel.vmem_bytes,
    }


def compile_one(name: str, target: str, keywords: str) -> None:
    """Compiles all gradients, and prints the compiler's cycles of what is outside the kernels."""
    from llama_jax.kernels.compiler_report import compile_for_tpu

    attention = functools.partial(implementation(name).attention, **json.loads(keywords))

    def gradients(query, key, value, gradient, start, end):
        def forward(*arrays):
            return attention(*arrays, IntervalMask(start, end, MaskForm.PACKED), scale=H**-0.5)

        output, backward = jax.vjp(forward, query, key, value)
        return output, backward(gradient)

    query = jax.ShapeDtypeStruct((1, N, T, H), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((1, K, T, H), jnp.bfloat16)
    bounds = jax.ShapeDtypeStruct((1, T), jnp.int32)
    report = compile_for_tpu(gradients, query, key, key, query, bounds, bounds, target=target)
    print(json.dumps({"cycles": report.estimated_cycles}))


def visible_scores(mask: IntervalMask) -> int:
    return int(np.sum(np.asarray(mask.key_end) - np.asarray(mask.key_start)))


def flash_tpu_cycles(mask: IntervalMask, forward: Kernel, backward: Kernel) -> tuple[int, int]:
    blocks = choose_blocks(N // K, T, T, DEFAULT_SIZES)
    segments, blocks = in_segments(blocks, H)
    assert segments == 1
    met = ranges(mask, blocks)
    touched = int(np.sum(met.last - met.first))
    inside = np.clip(met.full_last, met.first, met.last) - np.clip(
        met.full_first, met.first, met.last
    )
    whole = int(np.sum(np.maximum(inside, 0)))

    def of_head(kernel: Kernel) -> int:
        full, masked = kernel.products
        turns = blocks.num_query_blocks * int(met.most)
        return whole * full + (touched - whole) * masked + turns * kernel.rest

    (begin,), (finish,) = forward.before, forward.after
    begin_head, begin_row = backward.before
    finish_row, finish_head = backward.after
    return (
        K * (of_head(forward) + blocks.num_query_blocks * (begin + finish)),
        K
        * (
            of_head(backward)
            + blocks.num_query_blocks * (begin_row + finish_row)
            + begin_head
            + finish_head
        ),
    )


def splash_cycles(
    mask: IntervalMask, forward: Kernel, backward: Kernel, block: int | None = None
) -> tuple[int, int]:
    """Every block on or below the diagonal, of whatever documents."""
    blocks = T // (block or splash.choose_block(T))
    touched, turns = blocks * (blocks + 1) // 2, blocks * blocks
    (one,), (one_back,) = forward.products, backward.products
    ends, ends_back = (sum((*kernel.before, *kernel.after)) for kernel in (forward, backward))
    return (
        N * (touched * one + turns * forward.rest + blocks * ends),
        N * (touched * one_back + turns * backward.rest) + K * blocks * ends_back,
    )


CYCLES = {"flash_tpu": flash_tpu_cycles, "splash": splash_cycles}
KERNEL_NAMES = {
    "flash_tpu": ("flash_tpu_forward", "flash_tpu_backward"),
    "splash": ("fwd", "dkv"),
}


if __name__ == "__main__":
    main()
