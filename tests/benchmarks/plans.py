"""Plans of the machines that the models are meant for, each by `llama-jax plan` as a user calls it.

    python tests/benchmarks/plans.py [NAME...]

Needs the compilers of `pip install '.[plan]'` and no accelerator; a minute or two for each. Each is
a file of tests/benchmarks/results/plans/, in which the command stands that made it.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "plans"

# One file each: its name -> the arguments of `llama-jax plan`.
PLANS = {
    "train_8b_v5p_2x2x4": "pretrain_8b --topology v5p:2x2x4 --rows 32",
    "train_8b_v6e_4x4": "pretrain_8b --topology v6e:4x4 --rows 48",
    "train_8b_v6e_16x16": "pretrain_8b --topology v6e:16x16 --rows 1024 --mesh.fsdp 256",
    "train_70b_v5p_4x4x4": "pretrain_70b --topology v5p:4x4x4 --rows 128 --mesh.fsdp 64",
    "train_70b_tpu7x_4x4x4": "pretrain_70b --topology tpu7x:4x4x4 --rows 256 --mesh.fsdp 128",
    "train_70b_tpu7x_4x4x4_fp8": (
        "pretrain_70b --topology tpu7x:4x4x4 --rows 256 --mesh.fsdp 128 --matmul fp8_tensorwise"
    ),
    "train_70b_2_v6e_16x16": (
        "pretrain_70b --topology 2*v6e:16x16 --rows 512 --mesh.data 2 --mesh.fsdp 256"
    ),
    "train_405b_v5p_8x8x8": (
        "pretrain_405b --topology v5p:8x8x8 --rows 1024 --micro-batches 2 --mesh.fsdp 512 "
        "--mesh.tensor 1"
    ),
    "train_405b_v5p_16x16x16_16m": "pretrain_405b --topology v5p:16x16x16",
    "train_405b_v5p_16x16x16_65m": "pretrain_405b_65m --topology v5p:16x16x16",
    "train_405b_128k_v5p_16x16x16": (
        "long_context_405b --topology v5p:16x16x16 --rows 512 --mesh.fsdp 512 --mesh.tensor 8"
    ),
}


def main(names: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name in names or PLANS:
        words = shlex.split(PLANS[name])
        start = time.perf_counter()
        command = [sys.executable, "-m", "llama_jax", "plan", *words, "--quiet"]
        # Of a plan that does not fit, the verdict is the result; other failures are errors.
        subprocess.run([*command, "--json", str(RESULTS / f"{name}.json")], check=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
