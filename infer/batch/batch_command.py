"""`llama-jax batch`: a file of prompts to a file of answers."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from infer.load_engine import EngineFlags, EngineOptions
from llama_jax import __version__

if TYPE_CHECKING:
    from infer.batch.job import Job
    from infer.batch.manifest import Manifest
    from infer.batch.mesh_peers import MeshPeers
    from infer.batch.options import BatchOptions
    from infer.batch.row_table import RowTable


def batch(
    model: tyro.conf.Positional[str],
    input: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    output_errors: Path | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    served_model_name: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    format: Literal["auto", "chat", "raw"] = "auto",
    engine: EngineFlags = EngineOptions(),  # noqa: B008
    roofline: bool = True,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    quiet: bool = False,
) -> int:
    """Answers every row of a JSONL file, durably: killed at any moment, the same command goes on.

    A row is one of OpenAI's batch format, {"custom_id", "method", "url", "body"}, and is answered
    in that format, or {"prompt": ...} or {"messages": ...} with OpenAI's sampling fields beside it,
    and is answered by a plain object. OUTPUT appears at the end, with the rows in the order of the
    input; until then finished rows lie in OUTPUT.parts. Rows that fail go to a file of their own,
    each with its reason, and the others go on. An answer depends on its row, the model and these
    options alone, not on other rows, their order, or interruptions.

    Several processes started with the same command on one file system share the rows. The exit code
    is 1 if rows failed, 143 or 130 if a signal ended the job before its end.

    A model that needs several hosts has a process on each: the same command, --devices the number
    of all their devices. Each reads INPUT and MODEL; process 0 writes. They find each other by
    --coordinator, or by what Slurm, Open MPI, Kubernetes or a TPU pod say. Processes with one
    device each do not look for others.

    Example: llama-jax batch llama-8b-instruct questions.jsonl answers.jsonl --max-new-tokens 256

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      input: the rows, JSONL in UTF-8.
      output: where the answers go.
      output_errors: where the rows that fail go; by default OUTPUT.errors.jsonl.
      max_new_tokens: the longest answer of a plain row that does not say.
      seed: of rows that have none: each draws its own from this number and its custom_id.
      served_model_name: what rows may call the model; give the option again for more names. By
        default the last part of MODEL.
      format: whether the prompt of a plain row is a user's message (chat) or text to be continued
        (raw); by default a message if the model is tuned for chat.
      roofline: at the end, say what share of this device's peaks was reached (a CPU is measured
        for it, in about two seconds).
      coordinator: HOST:PORT of process 0, for clusters that JAX does not know.
      num_processes: how many hold the model together, with --coordinator.
      process_id: which of them this is, from 0, with --coordinator.
      quiet: print plain lines of progress and the result only.
    """
    from infer.batch.job import Job
    from infer.batch.mesh_peers import MeshPeers
    from infer.batch.options import BatchOptions
    from infer.server.serve_command import default_name
    from sharding.multihost import initialize

    options = BatchOptions(
        names=served_model_name or (default_name(model),),
        max_new_tokens=max_new_tokens,
        seed=seed,
        format=format,
        engine=engine,
    )
    peers = MeshPeers()
    # In a cluster too, processes with a device each are engines of their own.
    if engine.devices > 1 or {coordinator, num_processes, process_id} != {None}:
        cluster = initialize(coordinator, num_processes, process_id)
        if peers.count > 1 and not quiet:
            print(cluster, file=sys.stderr, flush=True)
    job = Job(output, output_errors)
    try:
        return _run(model, input, job, options, peers, roofline=roofline, quiet=quiet)
    finally:
        job.close()


def _run(
    model: str,
    source: Path,
    job: "Job",
    options: "BatchOptions",
    peers: "MeshPeers",
    *,
    roofline: bool,
    quiet: bool,
) -> int:
    """Opens the job, answers what is left of it, and tells; the exit code."""
    from infer.batch.job_report import job_lines, roofline_line, run_line
    from infer.batch.open_job import open_job, share_manifest
    from infer.compilation_cache import keep_compiled_programs

    def tell(*lines: str) -> None:
        if peers.is_first:
            print(*lines, sep="\n", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    keep_compiled_programs()
    path, table, wanted = peers.together(lambda: _look(model, source, job, options, peers))
    say(f"{source}: {len(table):,} rows, {table.num_bytes:,} bytes")
    open_job(job, wanted, peers)
    if job.manifest.finished is not None:
        tell("finished before; nothing is left to do", *job_lines(job))
        return int(job.manifest.finished["failed"] > 0)
    with peers.ended_by_errors():
        run, loaded, engine = _answer(job, table, path, options, say=say, quiet=quiet)
    line = run_line(run, num_processes=peers.count)
    if run.exit_code is not None:
        tell(line, "ended by a signal; every finished row is kept: the same command goes on")
        return run.exit_code
    share_manifest(job, peers)
    tell(*job_lines(job), line)
    if roofline and run.work.new_tokens and peers.is_first:
        tell(roofline_line(run, loaded, engine, num_devices=options.engine.devices))
    return int(job.manifest.finished["failed"] > 0)


def _look(
    model: str, source: Path, job: "Job", options: "BatchOptions", peers: "MeshPeers"
) -> "tuple[Path, RowTable, Manifest]":
    """Where the model is, what the rows are, and which job that makes; nothing is written yet."""
    from infer.batch.fingerprint import model_fingerprint
    from infer.batch.manifest import Manifest
    from infer.batch.row_request import default_limit
    from infer.batch.row_table import scan_rows
    from infer.load_engine import serving_mesh
    from llama_jax.checkpoints.formats import open_source
    from llama_jax.checkpoints.huggingface_repo import resolve_source

    if peers.is_first:
        job.check_paths(source)
    path = resolve_source(model)
    limit = default_limit(options.max_new_tokens, open_source(path).config.context_length)
    table = scan_rows(source, default_limit=limit)
    if peers.count > 1:
        serving_mesh(path, options.engine.devices)  # refuses what would leave one of them out
    wanted = Manifest(
        input_sha256=table.sha256,
        input_bytes=table.num_bytes,
        rows=len(table),
        model=model,
        fingerprint=model_fingerprint(path),
        options=options.of_answers,
        version=__version__,
        created=int(time.time()),
    )
    return path, table, wanted


def _answer(job: "Job", table: "RowTable", path: Path, options: "BatchOptions", *, say, quiet):
    """Loads the model, compiles, and runs; the `JobRun`, the model and the engine."""
    from infer.answers import Answering
    from infer.batch.job_modes import modes_for
    from infer.batch.job_shape import job_shape, prompt_counter
    from infer.batch.row_request import RowRequests
    from infer.batch.run_job import run_job
    from infer.generate_command import prompt_format
    from infer.load_engine import load_engine
    from infer.protocol import ServedModel

    start = time.monotonic()
    loaded, engine = load_engine(
        path,
        options.engine,
        prompt_logprobs=bool(table.rows["scores_prompt"].any()),
        modes=modes_for(table.needs),
        say=say,
    )
    chat_format = prompt_format(loaded, options.format)
    for note in (f"{path.name}: loaded in {time.monotonic() - start:.1f} s", *loaded.notes):
        say(note)
    served = ServedModel.of(loaded, names=options.names, max_length=engine.settings.max_length)
    parse = RowRequests(
        dataclasses.replace(served, chat_format=chat_format or loaded.chat_format),
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        prompts_are_messages=chat_format is not None,
    )
    with prompt_counter(table, parse) as count_tokens:
        say(str(job_shape(table, count_tokens)))
    engine.compile(say)
    run = run_job(
        job,
        table,
        answering=Answering(engine, loaded.tokenizer),
        parse=parse,
        slots=engine.settings.num_rows,
        say=say,
        quiet=quiet,
    )
    return run, loaded, engine
