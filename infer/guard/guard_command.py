"""`llama-jax guard`: a file of dialogs to a file of verdicts."""

from pathlib import Path
from typing import Annotated

import tyro

from infer.guard.guard_options import GuardOptions
from infer.load_engine import EngineFlags, EngineOptions
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.safety.guard_turns import Judged

GuardFlags = Annotated[GuardOptions, tyro.conf.arg(name="", help=""), tyro.conf.UseAppendAction]
"""The options as flags of a command, without a prefix."""


def guard(
    model: tyro.conf.Positional[str],
    input: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    output_errors: Path | None = None,
    judged: Judged = "last",
    guard: GuardFlags = GuardOptions(),  # noqa: B008
    engine: EngineFlags = EngineOptions(),  # noqa: B008
    roofline: bool = True,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    quiet: bool = False,
) -> int:
    """Judges every row of a JSONL file with Llama Guard 3: safe, or unsafe and of which categories.

    A row is a dialog {"messages": [...]} or a user's message {"prompt": "..."}, perhaps with an
    {"answer": "..."}, or a row of OpenAI's batch format: the questions of `llama-jax batch` can be
    judged as they are. A verdict is {"custom_id", "verdict":
    "safe" or "unsafe", "categories": ["S1", ...], "score", "usage"}. The score is the model's
    probability of "unsafe" where its verdict begins. An answer that is no proper verdict counts as
    unsafe, and `problem` says why. System messages are neither judged nor shown to the guard; what
    a tool says counts as the user's.

    It is a job like those of `llama-jax batch`: killed at any moment, the same command goes on;
    rows that cannot be judged go to a file of their own; several processes may share it.

    Example: llama-jax guard Llama-Guard-3-8B dialogs.jsonl verdicts.jsonl --max-length 8192

    Args:
      model: a Llama Guard 3 checkpoint: a folder, a .gguf file, or a Hugging Face repository id.
      input: the rows, JSONL in UTF-8.
      output: where the verdicts go.
      output_errors: where the rows that fail go; by default OUTPUT.errors.jsonl.
      judged: which turn of a dialog: the last, or the last of the user or the agent, without what
        follows it.
      roofline: at the end, say what share of this device's peaks was reached (a CPU is measured
        for it, in about two seconds).
      coordinator: HOST:PORT of process 0, for clusters that JAX does not know.
      num_processes: how many hold the model together, with --coordinator.
      process_id: which of them this is, from 0, with --coordinator.
      quiet: print plain lines of progress and the result only.
    """
    from infer.batch.job_command import Cluster, run_job_command
    from infer.guard.guard_kind import GuardKind

    prompt = guard.guard()
    refuse_prompt_guard(model)
    return run_job_command(
        GuardKind(model, guard, prompt, judged, engine),
        model=model,
        source=input,
        output=output,
        output_errors=output_errors,
        cluster=Cluster(coordinator, num_processes, process_id),
        roofline=roofline,
        quiet=quiet,
    )


def refuse_prompt_guard(model: str) -> None:
    """Raises `InputError` if the folder `model` is a Prompt Guard, which is no Llama."""
    config = Path(model) / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "deberta-v2":
        raise InputError(f"{model}: is a DeBERTa-v2 classifier: use llama-jax prompt-guard")
