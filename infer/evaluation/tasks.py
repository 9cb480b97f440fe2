"""What can be asked, by name."""

from pathlib import Path

from infer.evaluation.jsonl_task import read_jsonl_task
from infer.evaluation.mmlu_dev_task import LANGUAGES, read_mmlu_dev_task
from infer.evaluation.questions import OpenQuestion, Task
from llama_jax.errors import InputError
from llama_jax.verifiers import ReasoningGymTask, verifier_of


def read_task(name: str, *, num_questions: int, seed: int) -> Task:
    """The task that `name` names.

    Args:
      num_questions, seed: of a task whose questions are generated.

    Raises `InputError` if there is none, or it cannot be read.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "reasoning-gym":
        return _reasoning_gym(ReasoningGymTask(rest, seed, num_questions), name)
    if colon and kind == "mmlu-dev":
        return read_mmlu_dev_task(rest, name=name)
    if name.endswith(".jsonl"):
        return read_jsonl_task(Path(name), name=Path(name).stem)
    raise InputError(
        f"no task {name!r}; give a file that ends in .jsonl, reasoning-gym:NAME, or "
        f"mmlu-dev:LANGUAGE ({', '.join(LANGUAGES)})"
    )


def _reasoning_gym(task: ReasoningGymTask, name: str) -> Task:
    return Task(
        name,
        tuple(
            OpenQuestion(
                str(index),
                None,
                {"messages": [{"role": "user", "content": task.prompt(index)}], "temperature": 0},
                verifier_of(task.metadata(index)),
            )
            for index in range(task.size)
        ),
    )
