"""Who takes part in the offline comparison, and with which settings to choose among."""

from pathlib import Path
from typing import Literal

from infer.benchmark.contestant import Entry
from infer.benchmark.offline_report import OURS
from infer.benchmark.workload import Workload

Peer = Literal["transformers", "transformers-continuous", "llama.cpp"]
PEERS: tuple[Peer, ...] = ("transformers", "transformers-continuous", "llama.cpp")
DTYPES = ("float32", "bfloat16")


def entries(
    path: Path,
    workload: Workload,
    *,
    dtypes: tuple[str, ...],
    peers: tuple[Peer, ...],
    huggingface: Path,
    gguf: dict[str, Path],
) -> list[Entry]:
    """Ours first, in each dtype, then the peers.

    Args:
      path: the checkpoint.
      huggingface: the same weights as a Hugging Face folder, if a peer wants it.
      gguf: dtype -> the same weights as a GGUF file, if a peer wants it.
    """
    ours = [
        Entry(
            OURS,
            dtype,
            "infer.benchmark.engine_contestant:EngineContestant",
            {"path": path, "dtype": dtype, "workload": workload},
            optional=False,
        )
        for dtype in dtypes
    ]
    rows = len(workload.prompts)
    sizes = [size for size in (16, 32, 64) if size < rows] + [rows]
    arguments = {
        "transformers": (
            "infer.benchmark.transformers_contestants:Generate",
            [{"batch_size": size, "cache": "dynamic"} for size in sizes]
            + [{"batch_size": size, "cache": "static"} for size in sizes],
        ),
        "transformers-continuous": (
            "infer.benchmark.transformers_contestants:ContinuousBatching",
            [{"page_size": size} for size in (32, 256)],
        ),
        "llama.cpp": (
            "infer.benchmark.llama_cpp_contestant:LlamaCpp",
            [
                {"unified": unified, "flash": flash, "cache": cache}
                for unified, flash, cache in (
                    (False, True, "float16"),
                    (False, True, "float32"),
                    (False, False, "float32"),
                    (True, True, "float16"),
                )
            ],
        ),
    }
    theirs = []
    for peer in peers:
        factory, variants = arguments[peer]
        for dtype in dtypes:
            made_of = (
                {"path": gguf[dtype]}
                if peer == "llama.cpp"
                else {"folder": huggingface, "dtype": dtype}
            )
            theirs.append(Entry(peer, dtype, factory, made_of, tuple(variants)))
    return ours + theirs
