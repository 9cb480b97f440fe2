"""`llama-jax evaluate`: how many questions of some tasks a model answers rightly."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from infer.evaluation.result_lines import result_lines
from infer.load_engine import EngineFlags, EngineOptions
from llama_jax import __version__
from llama_jax.errors import InputError
from llama_jax.whole_file import write_lines

if TYPE_CHECKING:
    from infer.evaluation.questions import Task


def evaluate(
    model: tyro.conf.Positional[str],
    task: tyro.conf.Positional[tuple[str, ...]],
    *,
    output: Path,
    questions: int = 100,
    question_seed: int = 1 << 30,
    few_shot: int | None = None,
    examples: Path | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    format: Literal["auto", "chat", "raw"] = "auto",
    engine: EngineFlags = EngineOptions(),  # noqa: B008
    quiet: bool = False,
) -> int:
    """Asks a model the questions of one or more tasks and counts right answers, with the standard
    error of each share. Killed at any moment, the same command goes on.

    Tasks are files that end in .jsonl, with {"question", "choices", "answer"} a line (the choice
    that is most likely counts, by the sum of its log-probabilities and by that a byte or a token)
    or with rows of a batch job that say in their metadata how they are verified;
    reasoning-gym:NAME, questions that are generated; gsm8k:FILE and ifeval:FILE, files of GSM8K
    and IFEval as they are published, with the prompts and checks of the package lm-eval; and
    mmlu-dev:LANGUAGE, 285 questions out of that package. The exit code is 1 if questions could not
    be asked: they count neither as right nor as wrong.

    Example: llama-jax evaluate llama-8b-instruct mmlu-dev:de questions.jsonl --output eval/8b

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      task: what is asked.
      output: a folder, for what is asked, answered and counted.
      questions: of a task whose questions are generated.
      few_shot: so many other questions of its category stand before each question, with their
        answers; by default eight of gsm8k, and none of the others.
      examples: a file of questions to take those from; by default from the task itself.
      max_new_tokens: the longest answer to a question that does not say.
      question_seed: of questions that are generated: question i is drawn with this number plus i,
        so training data from seeds far below shares none.
      seed: of answers that are drawn.
      format: whether questions are put in the chat format or as plain text; by default as the model
        is tuned.
      quiet: print plain lines of progress and the results only.
    """
    from infer.batch.batch_command import batch
    from infer.evaluation.evaluation_rows import evaluation_rows
    from infer.evaluation.tasks import read_task
    from infer.generate_command import prompt_format
    from infer.text_side import load_text_side
    from llama_jax.batch_files.job_origin import read_origin
    from llama_jax.checkpoints.formats import open_source
    from llama_jax.checkpoints.huggingface_repo import resolve_source

    if questions < 1:
        raise InputError(f"--questions must be at least 1, not {questions}")
    if not task:
        raise InputError("give at least one task")
    if few_shot is not None and few_shot < 0:
        raise InputError(f"--few-shot must be at least 0, not {few_shot}")
    if examples is not None and not few_shot:
        raise InputError("--examples: say how many stand before a question, with --few-shot")
    settings = {
        "num_questions": questions, "seed": question_seed, "few_shot": few_shot,
        "examples": examples,
    }  # fmt: skip
    tasks = [read_task(name, **settings) for name in task]
    names = [one.name for one in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"task {max(names, key=names.count)}: is given twice; give it once")
    path = resolve_source(model)
    text = load_text_side(path, open_source(path))
    rows = evaluation_rows(tasks, text, prompt_format(text, format))
    output.mkdir(parents=True, exist_ok=True)
    _write_rows(output / "rows.jsonl", rows)
    code = batch(
        model,
        output / "rows.jsonl",
        output / "answers.jsonl",
        max_new_tokens=max_new_tokens,
        seed=seed,
        format=format,
        engine=engine,
        roofline=False,
        quiet=quiet,
    )
    if code > 1:  # a signal ended it
        return code
    results = {
        "model": model,
        "model_sha256": read_origin(output / "answers.jsonl").model_sha256,
        "llama_jax": __version__,
        "options": {
            "questions": questions,
            "question_seed": question_seed,
            "few_shot": few_shot,
            "examples": None if examples is None else str(examples),
            "max_new_tokens": max_new_tokens,
            "seed": seed,
            "format": format,
        },
        "tasks": _count(tasks, rows, output),
    }
    write_lines(output / "results.json", [json.dumps(results, indent=2, ensure_ascii=False)])
    print("\n".join(result_lines(results["tasks"])))
    return code


def _count(tasks: "list[Task]", rows: list[dict[str, Any]], output: Path) -> dict[str, Any]:
    """The results of each task; writes those of each question."""
    from infer.evaluation.evaluation_rows import row_names
    from infer.evaluation.results import question_result, summary
    from llama_jax.batch_files.answer_row import read_answers

    answers = {row.custom_id: row for row in read_answers(output / "answers.jsonl")}
    by_name = {row["custom_id"]: row for row in rows}
    lines, results = [], {}
    for task in tasks:
        marked = []
        for question in task.questions:
            asked = [by_name[name] for name in row_names(task, question)]
            result = question_result(question, asked, answers)
            marked.append(result)
            fields = {"task": task.name, "question": result.name, "category": result.category,
                      **result.marks, **result.details}  # fmt: skip
            lines.append(json.dumps(fields, ensure_ascii=False))
        results[task.name] = summary(marked)
    write_lines(output / "questions.jsonl", lines)
    return results


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Raises `InputError` if other rows are there: their answers would be counted as these'."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if not path.exists():
        write_lines(path, lines)
    elif path.read_text(encoding="utf-8") != "".join(f"{line}\n" for line in lines):
        raise InputError(f"{path}: asks other questions than these; give another --output")
