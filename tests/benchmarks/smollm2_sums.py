"""Accuracies of `smollm2_sums` for several seeds: by how much they rise, and how far they spread.

    python tests/benchmarks/smollm2_sums.py FOLDER 0 1 2

FOLDER gets the model and the rounds of each seed, and may have been worked in before: what is done
is kept. Results go to tests/benchmarks/results/smollm2_sums.json.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from configs.smollm2 import smollm2
from configs.smollm2_sums import smollm2_sums
from llama_jax.machine_description import describe_machine

RESULTS = Path(__file__).parent / "results" / "smollm2_sums.json"
ROOT = Path(__file__).parents[2]
# As the results call it -> the evaluation, in the order of the run.
STAGES = {
    "base": "round-0/evaluate-base",
    "sft": "round-0/evaluate",
    "round 1": "round-1/evaluate",
    "round 2": "round-2/evaluate",
}


def main() -> None:
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]
    base = folder / smollm2_sums().base
    if not base.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        smollm2(base)
    found = {str(seed): measure(folder, seed) for seed in seeds}
    results = {"command": f"python tests/benchmarks/smollm2_sums.py FOLDER {' '.join(found)}"}
    results |= describe_machine(("jax", "jaxlib", "reasoning-gym"))
    results["held_out_questions"] = smollm2_sums().held_out
    results["accuracy"] = {seed: one["accuracy"] for seed, one in found.items()}
    results["rise_at_least"] = {
        stage: min(one["accuracy"][stage] - one["accuracy"][before] for one in found.values())
        for before, stage in pairwise(STAGES)
    }
    results["spread"] = {
        stage: max(values) - min(values)
        for stage in STAGES
        for values in [[one["accuracy"][stage] for one in found.values()]]
    }
    results["seconds"] = {seed: one["seconds"] for seed, one in found.items()}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def measure(folder: Path, seed: int) -> dict:
    """Accuracy by stage, and seconds by step, of one seed."""
    output = folder / f"seed-{seed}"
    command = [sys.executable, "-m", "llama_jax", "post-train", "smollm2_sums", output.name]
    subprocess.run(
        [*command, "--seed", str(seed)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    accuracy = {}
    for stage, place in STAGES.items():
        results = json.loads((output / place / "results.json").read_text())
        accuracy[stage] = results["tasks"]["held_out"]["metrics"]["accuracy"]["mean"]
    steps = json.loads((output / "steps.json").read_text())["steps"]
    return {"accuracy": accuracy, "seconds": {one["step"]: one["seconds"] for one in steps}}


if __name__ == "__main__":
    main()
