"""`llama-jax bench infer`: throughput offline and latency served, ours and peers', in one run.

Three suites: `offline` (a job of many prompts, `offline.py`), `served` (clients of a running
server, `served.py`) and `steps` (prefill and decode of `Generator` by themselves, `steps.py`).
Peers compute with the same weights, exported for the run, on the same cores, one side at a time.
Results are kept as JSON with the command, the machine and the versions.
"""

import importlib.util
import inspect
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import tyro

from infer.benchmark.contestants import PEERS, Peer
from llama_jax.errors import InputError

Suite = Literal["offline", "served", "steps"]
Dtype = Literal["float32", "bfloat16"]
_PACKAGES = ("jax", "jaxlib", "numpy")
_PEER_PACKAGES = {
    "transformers": ("transformers", "torch"),
    "transformers-continuous": ("transformers", "torch"),
    "llama.cpp": ("llama-cpp-python", "gguf"),
}


def bench_infer(
    model: tyro.conf.Positional[str],
    *,
    suites: tuple[Suite, ...] = ("offline", "served"),
    peers: tuple[Peer, ...] = PEERS,
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16"),
    prompts: int = 64,
    shortest: int = 8,
    longest: int = 256,
    new_tokens: int = 64,
    concurrencies: tuple[int, ...] = (1, 8, 32),
    requests_per_client: int = 2,
    server: tuple[str, ...] = (),
    repetitions: int = 3,
    output: Path | None = None,
    quiet: bool = False,
) -> None:
    """Measures generation offline and served, against transformers and llama.cpp.

    Example: llama-jax bench infer SmolLM2-135M-Instruct.Q4_1.gguf --output result.json
      llama-jax bench infer llama-8b --suites offline --peers --dtypes bfloat16
      llama-jax bench infer llama-8b --suites served --server vllm=http://127.0.0.1:8001/v1

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      suites: offline, served, or steps (prefill and decode by themselves, against transformers).
      peers: transformers (`generate`), transformers-continuous (its continuous batching, and its
        server), llama.cpp (llama-cpp-python). None: ours alone, on any device.
      dtypes: of the weights, each measured; served with the last one.
      prompts: how many the offline job has.
      shortest: tokens of the shortest prompt.
      longest: tokens of the longest prompt.
      new_tokens: for each prompt, offline and served.
      concurrencies: numbers of clients of the server.
      requests_per_client: that each sends on average, at least eight requests in all.
      server: NAME=URL of a server that runs already, to be measured like ours; several.
      repetitions: of the offline measurements, the sides alternating.
      output: JSON file for all numbers.
      quiet: print the tables only.
    """
    job = {"prompts": prompts, "shortest": shortest, "longest": longest, "new_tokens": new_tokens}
    least = {"concurrencies": min(concurrencies, default=0)}
    _check(**job, **least, requests_per_client=requests_per_client, repetitions=repetitions)
    if longest < shortest:
        raise InputError(f"--longest {longest} must be at least --shortest {shortest}")
    if not suites or not dtypes:
        raise InputError("--suites and --dtypes: give at least one each")
    if output is not None and not output.resolve().parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist")
    urls = dict(_name_and_url(text) for text in server)
    _check_peers(peers, suites)

    from infer.benchmark.run_suites import run_suites
    from llama_jax.checkpoints.huggingface_repo import resolve_source
    from llama_jax.machine_description import describe_machine

    path = resolve_source(model)
    packages = dict.fromkeys(
        [*_PACKAGES, *(name for peer in peers for name in _PEER_PACKAGES[peer])]
    )
    result: dict[str, Any] = {
        "command": _command(
            path,
            suites=suites,
            peers=peers,
            dtypes=dtypes,
            **job,
            concurrencies=concurrencies,
            requests_per_client=requests_per_client,
            server=server,
            repetitions=repetitions,
        ),
        "model": path.name,
        "machine": describe_machine(tuple(packages)),
    }
    with tempfile.TemporaryDirectory() as folder:
        result |= run_suites(
            path,
            Path(folder),
            suites=suites,
            peers=peers,
            dtypes=dtypes,
            job=job,
            concurrencies=concurrencies,
            requests_per_client=requests_per_client,
            urls=urls,
            repetitions=repetitions,
            quiet=quiet,
        )
    from infer.benchmark.report import print_report

    print_report(result)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


def _command(path: Path, **options: Any) -> str:
    """The command with the options that differ from their defaults, without folders."""
    defaults = inspect.signature(bench_infer).parameters
    words = ["llama-jax bench infer", path.name]
    for name, value in options.items():
        if value != defaults[name].default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            name = f"--{name.replace('_', '-')}"
            raise InputError(f"{name} must be at least 1, not {value}")


def _name_and_url(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not (name and equals and url.startswith(("http://", "https://"))):
        raise InputError(f"--server {text}: give NAME=http://HOST:PORT/v1")
    return name, url.rstrip("/")


def _check_peers(peers: tuple[Peer, ...], suites: tuple[Suite, ...]) -> None:
    wanted = {"transformers": "transformers", "llama.cpp": "llama_cpp"}
    for peer in peers:
        package = wanted[peer.partition("-")[0]]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"--peers {peer} needs {package}: pip install '.[bench]', or name the "
                "peers that are here"
            )
    if "steps" in suites and importlib.util.find_spec("transformers") is None:
        raise InputError("--suites steps needs transformers: pip install '.[test]'")
    if peers or "steps" in suites:
        import jax

        if jax.default_backend() != "cpu":
            raise InputError(
                "the peers are compared on the CPU: set JAX_PLATFORMS=cpu, or give --peers alone"
            )
