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

AS_70B = (
    "--model.num-layers 80 --model.model-dim 8192 --model.num-heads 64 "
    "--model.feed-forward-dim 28672"
)
AS_405B = (
    "--model.num-layers 126 --model.model-dim 16384 --model.num-heads 128 "
    "--model.feed-forward-dim 53248"
)
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
    # What preference tuning takes beside fine-tuning, with the same rows.
    "sft_8b_v5p_2x2x4": "sft_8b --topology v5p:2x2x4 --rows 32",
    "dpo_8b_v5p_2x2x4": "dpo_8b --topology v5p:2x2x4 --rows 32",
    "sft_70b_v5p_4x4x4": f"sft_8b {AS_70B} --topology v5p:4x4x4 --rows 128 --mesh.fsdp 64",
    "dpo_70b_v5p_4x4x4": f"dpo_8b {AS_70B} --topology v5p:4x4x4 --rows 128 --mesh.fsdp 64",
    "sft_405b_v5p_8x8x8": f"sft_8b {AS_405B} --topology v5p:8x8x8 --rows 512 --mesh.fsdp 512",
    "dpo_405b_v5p_8x8x8": f"dpo_8b {AS_405B} --topology v5p:8x8x8 --rows 512 --mesh.fsdp 512",
    "train_70b_h100_8x8": "pretrain_70b --topology h100:8x8 --rows 128 --micro-batches 2 "
    "--mesh.fsdp 64",
    "serve_8b_a100": "llama31_8b --topology a100:1",
    "serve_8b_h100_128k": "llama31_8b --topology h100:1 --rows 3 --max-length 131072",
    # An H100's programs, held against less memory than it has.
    "serve_8b_int4_24_gb": "llama31_8b --topology h100:1 --recipe int4 --memory 24 --rows 8",
    "serve_70b_int8_64_gb": "llama31_70b --topology h100:1 --recipe int8 --memory 64 --rows 2",
    "serve_70b_int8_int4_64_gb": (
        "llama31_70b --topology h100:1 --recipe int8_int4 --memory 64 --rows 2"
    ),
    "serve_70b_int4_64_gb": "llama31_70b --topology h100:1 --recipe int4 --memory 64 --rows 2",
    "serve_70b_h100_4": "llama31_70b --topology h100:4",
    "serve_70b_v6e_2x4": "llama31_70b --topology v6e:2x4 --rows 64 --max-length 4096",
    "serve_70b_int8_v6e_2x4": "llama31_70b --topology v6e:2x4 --recipe int8 --rows 64",
    "serve_405b_fp8_h100_8": (
        "llama31_405b --topology h100:8 --recipe fp8 --rows 32 --max-length 4096"
    ),
}


def main(names: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name in names or PLANS:
        words = shlex.split(PLANS[name])
        start = time.perf_counter()
        command = [sys.executable, "-m", "llama_jax", "plan", *words, "--quiet"]
        done = subprocess.run([*command, "--json", str(RESULTS / f"{name}.json")])
        if done.returncode not in (0, 1):  # 1 is a verdict too
            raise SystemExit(f"{name}: failed")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
