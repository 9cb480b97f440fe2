"""`llama-jax prompt-guard`: a file of texts to a file of verdicts on who tries to take over."""

from pathlib import Path
from typing import Literal

import tyro

from llama_jax.errors import InputError


def prompt_guard(
    model: tyro.conf.Positional[str],
    input: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    output_errors: Path | None = None,
    source: Literal["auto", "user", "third_party"] = "auto",
    threshold: float = 0.9,
    window: int | None = None,
    overlap: int | None = None,
    batch_rows: int = 32,
    quiet: bool = False,
) -> int:
    """Judges every row of a JSONL file with Prompt Guard: does its text try to take a model over?

    A row is {"prompt": "..."} or {"messages": [...]}, of which the last message is judged, or a row
    of OpenAI's batch format. A user may give instructions, so a user's text is unsafe by the
    probability of JAILBREAK; a third party, such as a web page or a tool, may not, and its text is
    unsafe by that of INJECTION or JAILBREAK. A verdict is {"custom_id", "verdict", "score",
    "source", "label", "probabilities", "window", "windows"}.

    A text that is longer than the model's context is judged in windows that overlap, by the worst
    of them, whose number, from 0, is `window`. The job can be killed at any moment: the same
    command goes on; several processes may share it.

    Example: llama-jax prompt-guard Prompt-Guard-86M pages.jsonl verdicts.jsonl --source third_party

    Args:
      model: a Prompt Guard checkpoint: a Hugging Face folder, or a repository id.
      input: the rows, JSONL in UTF-8.
      output: where the verdicts go.
      output_errors: where the rows that fail go; by default OUTPUT.errors.jsonl.
      source: who wrote the texts; by default a third party where the last message is a tool's, and
        else a user.
      threshold: a text is unsafe above it; the default is that of llama-stack's shield.
      window: tokens that are judged together; by default the model's context.
      overlap: tokens that neighbouring windows share; by default a quarter of a window.
      batch_rows: windows that are judged at once.
      quiet: print plain lines of progress and the result only.
    """
    import sys
    import time

    from infer.batch.job import Job
    from infer.batch.job_report import job_lines, run_line
    from infer.batch.manifest import Manifest
    from infer.batch.row_table import scan_rows
    from infer.compilation_cache import keep_compiled_programs
    from infer.guard.prompt_guard_job import PromptGuardJob
    from infer.guard.verdict_counts import verdict_counts
    from llama_jax import __version__
    from llama_jax.checkpoints.fingerprint import model_fingerprint
    from llama_jax.checkpoints.huggingface_repo import resolve_source
    from llama_jax.safety.prompt_guard import load_prompt_guard
    from sharding.multihost import check_alone

    if not 0 < threshold < 1:
        raise InputError(f"--threshold must be between 0 and 1, not {threshold}")
    check_alone("judge with Prompt Guard")

    def tell(*lines: str) -> None:
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    keep_compiled_programs()
    job = Job(output, output_errors)
    job.check_paths(input)
    folder = resolve_source(model)
    table = scan_rows(input, default_limit=lambda row: 0)
    say(f"{input}: {len(table):,} rows, {table.num_bytes:,} bytes")
    guard = load_prompt_guard(folder, window=window, overlap=overlap, batch_rows=batch_rows)
    options = {"source": source, "threshold": threshold, "window": window, "overlap": overlap}
    wanted = Manifest(
        input_sha256=table.sha256,
        input_bytes=table.num_bytes,
        rows=len(table),
        model=model,
        fingerprint=model_fingerprint(folder),
        options=options,
        version=__version__,
        created=int(time.time()),
    )
    try:
        job.open(wanted)
        if job.manifest.finished is not None:
            tell("finished before; nothing is left to do")
        else:
            run = PromptGuardJob(
                job,
                table,
                guard,
                source=source,
                threshold=threshold,
                group_rows=4 * batch_rows,
                say=say,
                quiet=quiet,
            ).run()
            tell(run_line(run))
            if run.exit_code is not None:
                tell("ended by a signal; every finished row is kept: the same command goes on")
                return run.exit_code
        tell(*job_lines(job), *verdict_counts(output, "label"))
        return int(job.manifest.finished["failed"] > 0)
    finally:
        job.close()
