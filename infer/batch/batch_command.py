"""`llama-jax batch`: a file of prompts to a file of answers."""

from pathlib import Path
from typing import Literal

import tyro

from infer.load_engine import EngineFlags, EngineOptions


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

    Beyond OpenAI's, a row may have the fields top_k, min_p, repetition_penalty,
    allowed_token_ids, stop_token_ids, min_tokens, ignore_eos, include_stop_str_in_output,
    skip_special_tokens, prompt_logprobs, and structured_outputs with one of json, json_object,
    regex, choice and grammar (Lark).

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
    from infer.batch.answer_kind import AnswerKind
    from infer.batch.job_command import Cluster, run_job_command
    from infer.batch.options import BatchOptions
    from infer.server.serve_command import default_name

    options = BatchOptions(
        names=served_model_name or (default_name(model),),
        max_new_tokens=max_new_tokens,
        seed=seed,
        format=format,
        engine=engine,
    )
    return run_job_command(
        AnswerKind(options),
        model=model,
        source=input,
        output=output,
        output_errors=output_errors,
        cluster=Cluster(coordinator, num_processes, process_id),
        roofline=roofline,
        quiet=quiet,
    )
