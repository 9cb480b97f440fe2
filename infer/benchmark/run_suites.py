"""Prepares what the suites need, once, and runs them: weights for the peers, prompts, peaks."""

import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infer.benchmark.contestant_process import ContestantError
from infer.benchmark.contestants import Peer, entries
from infer.benchmark.offline import measure_offline
from infer.benchmark.offline_report import offline_report
from infer.benchmark.peaks import Peaks, measure_peaks
from infer.benchmark.peer_servers import llama_cpp_server, transformers_server
from infer.benchmark.served import ServedWorkload, measure_served
from infer.benchmark.server_process import Server, our_server
from infer.benchmark.steps import measure_steps
from infer.benchmark.workload import mixed_workload
from llama_jax.checkpoints.asset_files import write_assets
from llama_jax.checkpoints.formats import open_source
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer


def run_suites(
    path: Path,
    folder: Path,
    *,
    suites: tuple[str, ...],
    peers: tuple[Peer, ...],
    dtypes: tuple[str, ...],
    job: Mapping[str, int],
    concurrencies: tuple[int, ...],
    requests_per_client: int,
    urls: Mapping[str, str],
    repetitions: int,
    quiet: bool,
) -> dict[str, Any]:
    """The peaks, and a part for each suite; see `bench_infer` for the arguments.

    Args:
      path: the checkpoint.
      folder: a temporary one, for the peers' copies of the weights.
      urls: name -> API of a server that runs already.
    """
    huggingface, gguf = _export(path, folder, peers, dtypes, needs_steps="steps" in suites)
    peaks = measure_peaks(dtypes, quiet=quiet)
    result: dict[str, Any] = peaks.report()
    if "offline" in suites:
        result["offline"] = _offline(
            path, huggingface, gguf, peers, dtypes, job, repetitions, peaks, quiet
        )
    if "served" in suites:
        dtype = dtypes[-1]
        servers = [our_server(str(path), dtype)]
        if "transformers-continuous" in peers:
            servers.append(transformers_server(huggingface, dtype))
        if "llama.cpp" in peers and open_source(path).format == "gguf":
            servers.append(llama_cpp_server(gguf[dtype], dtype))
        elif "llama.cpp" in peers:
            line = "its server is left out: only a GGUF source has a tokenizer that it can read"
            print(f"llama.cpp: {line}", file=sys.stderr)
        servers += [Server(name, None, url=url) for name, url in urls.items()]
        workload = _served_workload(path, job, concurrencies, requests_per_client)
        result["served"] = measure_served(servers, workload, quiet=quiet)
    if "steps" in suites:
        result["steps"] = measure_steps(
            path, huggingface, dtypes=dtypes, peaks=peaks, repetitions=repetitions, quiet=quiet
        )
    return result


def _export(
    path: Path, folder: Path, peers: tuple[Peer, ...], dtypes: tuple[str, ...], *, needs_steps: bool
) -> tuple[Path, dict[str, Path]]:
    """Where the peers' copies of the weights are, written if a peer wants them."""
    huggingface = folder / "hf"
    gguf = {dtype: folder / f"{dtype}.gguf" for dtype in dtypes}
    if needs_steps or any(peer != "llama.cpp" for peer in peers):
        from llama_jax.checkpoints.convert import convert

        convert(path, huggingface, to="hf", quiet=True, say=lambda line: None)
    if "llama.cpp" in peers:
        from infer.benchmark.gguf_export import export_gguf

        for dtype, file in gguf.items():
            export_gguf(open_source(path), file, dtype=dtype)
    return huggingface, gguf


def _offline(
    path: Path,
    huggingface: Path,
    gguf: dict[str, Path],
    peers: tuple[Peer, ...],
    dtypes: tuple[str, ...],
    job: Mapping[str, int],
    repetitions: int,
    peaks: Peaks,
    quiet: bool,
) -> dict[str, Any]:
    workload = mixed_workload(_tokenizer(path).encode, **job)
    sides = entries(path, workload, dtypes=dtypes, peers=peers, huggingface=huggingface, gguf=gguf)
    try:
        measured = measure_offline(sides, workload, repetitions=repetitions, quiet=quiet)
    except ContestantError as error:
        raise InputError(str(error)) from None
    return offline_report(open_source(path).config, workload, measured, peaks=peaks)


def _served_workload(
    path: Path,
    job: Mapping[str, int],
    concurrencies: tuple[int, ...],
    requests_per_client: int,
) -> ServedWorkload:
    tokenizer = _tokenizer(path)
    served = ServedWorkload((), job["new_tokens"], concurrencies, requests_per_client)
    prompts = mixed_workload(tokenizer.encode, **{**job, "prompts": served.num_prompts}, seed=1)
    texts = tuple(tokenizer.decode(list(prompt)) for prompt in prompts.prompts)
    return dataclasses.replace(served, prompts=texts)


def _tokenizer(path: Path) -> Tokenizer:
    """The text side alone: the weights are for the processes of the sides."""
    with tempfile.TemporaryDirectory() as folder:
        write_assets(Path(folder), open_source(path).assets)
        return load_tokenizer(Path(folder))
