"""A command that runs a job of any kind, from its files to its exit code."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infer.answers import Answering
from infer.batch.job import Job
from infer.batch.job_kind import JobKind
from infer.batch.job_report import job_lines, roofline_line, run_line
from infer.batch.job_shape import job_shape, prompt_counter
from infer.batch.manifest import Manifest
from infer.batch.mesh_peers import MeshPeers
from infer.batch.open_job import open_job, share_manifest
from infer.batch.row_table import RowTable, scan_rows
from infer.batch.run_job import JobRun, run_job
from infer.compilation_cache import keep_compiled_programs
from infer.engine.engine import Engine
from infer.load_engine import load_engine, serving_mesh
from infer.loaded_model import LoadedModel
from llama_jax import __version__
from llama_jax.checkpoints.fingerprint import model_fingerprint
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface_repo import resolve_source
from sharding.multihost import initialize


@dataclass(frozen=True)
class Cluster:
    """How several processes that hold a model together find each other; None where the cluster
    says so itself. See `batch_command.py`."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def run_job_command(
    kind: JobKind,
    *,
    model: str,
    source: Path,
    output: Path,
    output_errors: Path | None,
    cluster: Cluster,
    roofline: bool,
    quiet: bool,
) -> int:
    """Opens the job, does what is left of it, and tells; the exit code."""
    peers = MeshPeers()
    # In a cluster too, processes with a device each are engines of their own.
    if kind.engine.devices > 1 or cluster != Cluster():
        said = initialize(cluster.coordinator, cluster.num_processes, cluster.process_id)
        if peers.count > 1 and not quiet:
            print(said, file=sys.stderr, flush=True)
    job = Job(output, output_errors)
    try:
        return _run(kind, model, source, job, peers, roofline=roofline, quiet=quiet)
    finally:
        job.close()


def _run(
    kind: JobKind,
    model: str,
    source: Path,
    job: Job,
    peers: MeshPeers,
    *,
    roofline: bool,
    quiet: bool,
) -> int:
    def tell(*lines: str) -> None:
        if peers.is_first:
            print(*lines, sep="\n", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    keep_compiled_programs()
    path, table, wanted = peers.together(lambda: _look(kind, model, source, job, peers))
    say(f"{source}: {len(table):,} rows, {table.num_bytes:,} bytes")
    open_job(job, wanted, peers)
    if job.manifest.finished is not None:
        tell("finished before; nothing is left to do", *_ending(kind, job, peers))
        return int(job.manifest.finished["failed"] > 0)
    with peers.ended_by_errors():
        run, loaded, engine = _work(kind, job, table, path, say=say, quiet=quiet)
    line = run_line(run, num_processes=peers.count)
    if run.exit_code is not None:
        tell(line, "ended by a signal; every finished row is kept: the same command goes on")
        return run.exit_code
    share_manifest(job, peers)
    tell(*_ending(kind, job, peers), line)
    if roofline and run.work.new_tokens and peers.is_first:
        tell(roofline_line(run, loaded, engine, num_devices=kind.engine.devices))
    return int(job.manifest.finished["failed"] > 0)


def _ending(kind: JobKind, job: Job, peers: MeshPeers) -> list[str]:
    """Lines about the finished job; only process 0 reads its output for them."""
    return [*job_lines(job), *kind.summary(job)] if peers.is_first else []


def _look(
    kind: JobKind, model: str, source: Path, job: Job, peers: MeshPeers
) -> tuple[Path, RowTable, Manifest]:
    """Where the model is, what the rows are, and which job that makes; nothing is written yet."""
    if peers.is_first:
        job.check_paths(source)
    path = resolve_source(model)
    limit = kind.limit(open_source(path).config.context_length)
    table = scan_rows(source, default_limit=limit)
    if peers.count > 1:
        serving_mesh(path, kind.engine.devices)  # refuses what would leave one of them out
    wanted = Manifest(
        input_sha256=table.sha256,
        input_bytes=table.num_bytes,
        rows=len(table),
        model=model,
        fingerprint=model_fingerprint(path),
        options=kind.of_answers,
        version=__version__,
        created=int(time.time()),
    )
    return path, table, wanted


def _work(
    kind: JobKind,
    job: Job,
    table: RowTable,
    path: Path,
    *,
    say: Callable[[str], None],
    quiet: bool,
) -> tuple[JobRun, LoadedModel, Engine]:
    """Loads the model, compiles, and runs."""
    start = time.monotonic()
    loaded, engine = load_engine(
        path,
        kind.engine,
        prompt_logprobs=bool(table.rows["scores_prompt"].any()),
        modes=kind.modes(table),
        say=say,
    )
    parse = kind.parser(loaded, engine)
    seconds = time.monotonic() - start
    for note in (f"{path.name}: loaded in {seconds:.1f} s", *loaded.notes, *kind.notes(loaded)):
        say(note)
    with prompt_counter(table, parse) as count_tokens:
        say(str(job_shape(table, count_tokens)))
    engine.compile(say)
    run = run_job(
        job,
        table,
        answering=Answering(engine, loaded.tokenizer),
        parse=parse,
        outputs=kind.outputs(job.manifest, loaded, engine),
        slots=engine.settings.num_rows,
        say=say,
        quiet=quiet,
    )
    return run, loaded, engine
