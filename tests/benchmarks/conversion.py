"""Measures conversion on a checkpoint of the size of Llama 3.1 8B: time against `cp`, and memory.

    python tests/benchmarks/conversion.py FOLDER

FOLDER, on the disk to be measured, needs room for three copies (50 GB) and is left empty. Each
conversion and the copy begin with cold caches where that is permitted (root), end with the data on
the disk, and are verified. Results go to tests/benchmarks/results/conversion.json. The weights are
random bytes, which no file system can shrink.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from llama_jax.checkpoints.huggingface import HuggingFaceSink
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import LLAMA_31_8B

RESULTS = Path(__file__).parent / "results" / "conversion.json"
CONVERT = """
import sys
from llama_jax.checkpoints.convert import convert
source, destination, to = sys.argv[1:]
print(convert(source, destination, to=to, quiet=True).peak_anonymous_bytes)
"""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    specs = {
        tensor.name: TensorSpec(tensor.shape, np.dtype(ml_dtypes.bfloat16))
        for tensor in layer_tensors(LLAMA_31_8B)
    }
    num_bytes = sum(spec.num_bytes for spec in specs.values())
    largest = max(spec.num_bytes for spec in specs.values())
    print(f"writing {num_bytes:,} bytes", flush=True)
    write_source(source, specs)
    copy_seconds = measure(["cp", "-r", str(source), str(folder / "copy")], folder / "copy")[0]
    print(f"cp: {copy_seconds:.1f} s", flush=True)
    shutil.rmtree(folder / "copy")
    conversions = {}
    for start, to in (("source", "orbax"), ("orbax", "hf"), ("hf", "meta")):
        command = [sys.executable, "-c", CONVERT, str(folder / start), str(folder / to), to]
        seconds, output = measure(command, folder / to)
        peak = int(output.splitlines()[-1])
        conversions[f"{'hf' if start == 'source' else start} to {to}"] = {
            "seconds": round(seconds, 1),
            "megabytes_per_second": round(num_bytes / seconds / 1e6),
            "times_cp": round(seconds / copy_seconds, 2),
            "peak_rss_anon_bytes": peak,
            "memory_goal_bytes": int(1.5 * 2**30) + 2 * largest,
        }
        print(json.dumps(conversions), flush=True)
        shutil.rmtree(folder / start)
    shutil.rmtree(folder)
    result = {
        "command": "python tests/benchmarks/conversion.py FOLDER",
        "checkpoint": "shape of Llama 3.1 8B, bfloat16, random bytes",
        "bytes": num_bytes,
        "largest_tensor_bytes": largest,
        "machine": {
            "cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.system(),
            "load_average_at_end": os.getloadavg()[0],
        },
        "cp_seconds": round(copy_seconds, 1),
        "cp_megabytes_per_second": round(num_bytes / copy_seconds / 1e6),
        "conversions": conversions,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULTS.read_text())


def write_source(path: Path, specs: dict[str, TensorSpec]) -> None:
    piece = np.random.default_rng(0).integers(0, 2**16, 2**24, np.uint16)
    sink = HuggingFaceSink(path, LLAMA_31_8B, specs, Assets())
    for number, (name, spec) in enumerate(specs.items()):
        # Turned by another amount for each tensor, so that none is equal to another.
        values = np.resize(np.roll(piece, 1009 * number), spec.shape)
        sink.write(name, values.view(ml_dtypes.bfloat16))
    sink.finish()


def measure(command: list[str], written: Path) -> tuple[float, str]:
    """Seconds until what `command` writes is on the disk, and what it prints."""
    os.sync()
    caches = Path("/proc/sys/vm/drop_caches")
    if os.access(caches, os.W_OK):
        caches.write_text("1")
    start = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for path in written.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.monotonic() - start, done.stdout


if __name__ == "__main__":
    main()
