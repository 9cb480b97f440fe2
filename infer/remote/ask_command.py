"""`llama-jax ask`: a file of prompts to a file of answers, by a model behind a URL."""

import asyncio
import importlib.util
import os
import sys
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from llama_jax import __version__
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from infer.batch.job import Job
    from infer.batch.manifest import Manifest
    from infer.batch.row_table import RowTable
    from infer.batch.run_job import JobRun
    from infer.remote.remote_request import RemoteRequests


def ask(
    url: tyro.conf.Positional[str],
    input: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    model: str,
    output_errors: Path | None = None,
    max_new_tokens: int = 128,
    seed: int | None = None,
    format: Literal["chat", "raw"] = "chat",
    concurrency: int = 16,
    tries: int = 6,
    request_timeout: float = 600.0,
    api_key_file: Path | None = None,
    quiet: bool = False,
) -> int:
    """Has every row of a JSONL file answered by a model behind an OpenAI-compatible URL, durably.

    Rows, output, errors and resumption are those of `llama-jax batch`: killed at any moment, the
    same command goes on, and nothing that was answered is asked again; several processes with the
    same command share the rows. A request that fails with 429, 5xx or a broken connection is tried
    again, after the time that the server asks for or a growing one; a full queue that says how long
    is waited for up to an hour. A row that fails goes to the file of errors, with the server's
    status, code and message. If there is no connection, no such model, no access or no quota, the
    job ends, to go on later; if nothing was answered yet, it leaves no files. The key of the
    server, if it needs one, is in LLAMA_JAX_API_KEY or a file.

    Whether answers may be used for training is for the model's licence to say; `llama-jax select`
    writes it into every row.

    Example: llama-jax ask http://gpu7:8000/v1 questions.jsonl answers.jsonl --model llama-405b

    Args:
      url: of the API, as OpenAI's clients take it: it mostly ends in /v1.
      input: the rows, JSONL in UTF-8.
      output: where the answers go.
      model: what the server calls the model.
      output_errors: where the rows that fail go; by default OUTPUT.errors.jsonl.
      max_new_tokens: the longest answer of a plain row that does not say.
      seed: of rows that have none: each gets its own from this number and its custom_id. By default
        none is sent.
      format: whether the prompt of a plain row is a user's message (chat) or text to be continued
        (raw).
      concurrency: requests under way at once.
      tries: of one request.
      request_timeout: seconds that the server may be silent.
      api_key_file: the key, in a file of one line.
      quiet: print plain lines of progress and the result only.
    """
    from infer.batch.job import Job
    from infer.remote.remote_request import RemoteRequests

    if importlib.util.find_spec("httpx") is None:
        raise InputError("asking needs httpx: pip install '.[ask]'")
    url = _checked_url(url)
    for name, value in (("concurrency", concurrency), ("tries", tries)):
        if value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if max_new_tokens < 1:
        raise InputError(f"--max-new-tokens must be at least 1, not {max_new_tokens}")
    if not request_timeout > 0:
        raise InputError(f"--request-timeout must be above 0, not {request_timeout}")
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"--seed must be from 0 to 2^32 - 1, not {seed}")
    if not model or not model.isprintable():
        raise InputError(f"--model must be printable text, not {model!r}")
    requests = RemoteRequests(model, seed, max_new_tokens, format)
    headers = _key_header(api_key_file)
    job = Job(output, output_errors)
    try:
        table, wanted = _look(url, input, job, requests)
        return _run(
            job, table, wanted, url, requests, headers, quiet=quiet,
            concurrency=concurrency, tries=tries, timeout=request_timeout,
        )  # fmt: skip
    finally:
        job.close()


def _checked_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  (is read to be checked)
    except ValueError as error:
        raise InputError(f"URL {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"URL must be that of an API, as http://host:8000/v1, not {url!r}")
    if parts.username is not None or parts.password is not None:
        # It would stand in the manifest and in the provenance of every row.
        raise InputError("URL holds a password; put the key into LLAMA_JAX_API_KEY")
    return url.rstrip("/")


def _key_header(path: Path | None) -> dict[str, str]:
    from infer.api_keys import read_api_keys

    keys = read_api_keys(path, {} if path else os.environ)
    if len(keys) > 1:
        raise InputError(f"{path}: holds {len(keys)} keys; leave the one of the server")
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


def _look(
    url: str, source: Path, job: "Job", requests: "RemoteRequests"
) -> "tuple[RowTable, Manifest]":
    """What the rows are, and which job that makes; nothing is written yet."""
    from infer.batch.manifest import Manifest
    from infer.batch.row_table import scan_rows

    job.check_paths(source)
    table = scan_rows(source, default_limit=lambda row: requests.max_new_tokens)
    wanted = Manifest(
        input_sha256=table.sha256,
        input_bytes=table.num_bytes,
        rows=len(table),
        model=requests.model,
        fingerprint="",  # of files that are not here
        options={
            "url": url,
            "model": requests.model,
            "max_new_tokens": requests.max_new_tokens,
            "seed": requests.seed,
            "format": requests.format,
        },
        version=__version__,
        created=int(time.time()),
    )
    return table, wanted


def _run(
    job: "Job",
    table: "RowTable",
    wanted: "Manifest",
    url: str,
    requests: "RemoteRequests",
    headers: dict[str, str],
    *,
    quiet: bool,
    **how: float,
) -> int:
    """Opens the job, has answered what is left of it, and tells; the exit code."""
    from infer.batch.job_report import job_lines, run_line
    from infer.remote.remote_client import NoServer

    def tell(*lines: str) -> None:
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    say(f"{table.path}: {len(table):,} rows, {table.num_bytes:,} bytes")
    job.open(wanted)
    if job.manifest.finished is not None:
        tell("finished before; nothing is left to do", *job_lines(job))
        return int(job.manifest.finished["failed"] > 0)
    try:
        run = asyncio.run(_ask_all(job, table, url, requests, headers, say=say, quiet=quiet, **how))
    except NoServer:
        job.forget_if_unbegun()
        raise
    if run.exit_code is not None:
        tell(
            run_line(run),
            "ended by a signal; every finished row is kept: the same command goes on",
        )
        return run.exit_code
    tell(*job_lines(job), run_line(run))
    return int(job.manifest.finished["failed"] > 0)


async def _ask_all(
    job: "Job",
    table: "RowTable",
    url: str,
    requests: "RemoteRequests",
    headers: dict[str, str],
    *,
    concurrency: int,
    tries: int,
    timeout: float,
    say,
    quiet: bool,
) -> "JobRun":
    import httpx

    from infer.batch.row_output import RowOutputs
    from infer.batch.run_job import JobRun
    from infer.batch.workbench import workbench
    from infer.remote.remote_client import RemoteClient
    from infer.remote.remote_runner import RemoteRunner

    outputs = RowOutputs(job.manifest.input_sha256, job.manifest.created)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    client = httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers)
    with workbench(job, table, say=say, quiet=quiet) as bench:
        async with client as http:
            asking = RemoteClient(http, url, tries)
            runner = RemoteRunner(bench, outputs, asking, requests, concurrency)
            is_finished = await runner.run()
        seconds = bench.progress.seconds
    return JobRun(None if is_finished else bench.stop.exit_code, bench.progress.work, seconds)
