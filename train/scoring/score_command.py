"""`llama-jax score`: a reward model's scores of answers, or of people's preferences."""

from pathlib import Path
from typing import Literal

import tyro

from llama_jax.batch_files.output_paths import check_outputs
from llama_jax.errors import InputError


def score(
    model: tyro.conf.Positional[str],
    input: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    *,
    questions: Path | None = None,
    tokenizer: str | None = None,
    chat_format: Literal["auto", "llama31", "template"] = "auto",
    today: str | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    devices: int = 1,
    tokens_at_once: int = 16_384,
    on_error: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Scores answers with a reward model: higher is better.

    With --questions, INPUT is what llama-jax batch answered, and OUTPUT what llama-jax select
    takes: a line a sample, {"custom_id", "sample", "score", ...}. Without, INPUT is preferences as
    llama-jax data preferences takes them; OUTPUT has a line for each, {"line", "category",
    "scores": {"chosen": ..., "rejected": ...}}, and what share of the comparisons the model finds
    right is printed, overall and by category. Interrupted, the same command goes on.

    Example: llama-jax score runs/reward_8b answers.jsonl scores.jsonl --questions questions.jsonl

    Args:
      model: a reward model: a run's folder or a checkpoint of any format.
      input: JSONL, answers or preferences.
      output: JSONL, which appears when it is whole.
      questions: the rows that were answered.
      tokenizer: a checkpoint folder with chat template, a tokenizer.json or .model; by default the
        model's own.
      chat_format: auto is the checkpoint's template, or Llama 3.1's format of Meta's own folders.
      today: the date that chat templates write into dialogs, where they do: 2024-07-26.
      dtype: of weights and activations; as stored by default.
      devices: that hold the model together.
      tokens_at_once: on each device, padding included.
      on_error: what an answer or a line that cannot be scored does: end the work, or be counted and
        left out; OUTPUT says why an answer has no score.
      overwrite: replace an output that is there, once the new one is whole.
      quiet: print the result only.
    """
    from llama_jax.checkpoints.fingerprint import model_fingerprint
    from llama_jax.checkpoints.huggingface_repo import resolve_source
    from llama_jax.whole_file import whole_file
    from train.scoring.dialog_tokens import DialogTokens
    from train.scoring.kept_scores import KeptScores
    from train.scoring.reward_scorer import RewardScorer
    from train.scoring.score_answers import score_answers
    from train.scoring.score_preferences import score_preferences

    check_outputs([output], [input, questions], overwrite=overwrite)
    if tokens_at_once < 1:
        raise InputError(f"--tokens-at-once must be at least 1, not {tokens_at_once}")
    path = resolve_source(model)
    scorer = RewardScorer(path, dtype=dtype, num_devices=devices, tokens_at_once=tokens_at_once)
    tokens = DialogTokens(
        tokenizer or path,
        chat_format=chat_format,
        today=today,
        context_length=scorer.config.context_length,
    )
    scored_by = Path(model).name, model_fingerprint(path)
    kept = KeptScores(scorer, output.with_name(f"{output.name}.parts"), key=f"{scored_by} {dtype}")
    with whole_file(output) as file:
        if questions is None:
            said = score_preferences(kept, tokens, input, file, on_error=on_error, quiet=quiet)
        else:
            said = score_answers(
                kept, tokens, input, file, questions=questions, scored_by=scored_by,
                on_error=on_error, quiet=quiet,
            )  # fmt: skip
    kept.forget()
    print(f"{output}: {said}")
