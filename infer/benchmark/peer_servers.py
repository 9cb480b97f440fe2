"""Servers of others on the same weights, started for the served suite."""

import sys
from pathlib import Path

from infer.benchmark.server_process import Server


def transformers_server(folder: Path, dtype: str) -> Server:
    """`transformers serve` with its continuous batching, on the CPU."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--continuous-batching", "--device", "cpu", "--dtype", dtype, "--port", "{port}"]
    # On a CPU its cache would take nine tenths of the memory that is free.
    options += ["--cb-num-blocks", "128", "--cb-max-batch-tokens", "512", "--host", "127.0.0.1"]
    # It lists only models of a hub's cache, which a machine may not have.
    return Server("transformers", dtype, [*command, *options], model=str(folder))


def llama_cpp_server(path: Path, dtype: str) -> Server:
    """The server of `llama-cpp-python`, which answers one request after the other."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--port", "{port}"]
    return Server("llama.cpp (Python)", dtype, [*command, "--n_ctx", "2048"])
