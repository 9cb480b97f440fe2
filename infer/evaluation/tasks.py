"""What can be asked, by name."""

from pathlib import Path

from infer.evaluation.few_shot import with_examples
from infer.evaluation.gsm8k_task import FEW_SHOT, read_gsm8k_task
from infer.evaluation.ifeval_task import read_ifeval_task
from infer.evaluation.jsonl_task import read_jsonl_task
from infer.evaluation.mmlu_dev_task import LANGUAGES, read_mmlu_dev_task
from infer.evaluation.questions import OpenQuestion, Task
from llama_jax.errors import InputError
from llama_jax.verifiers import ReasoningGymTask, verifier_of


def read_task(
    name: str, *, num_questions: int, seed: int, few_shot: int | None, examples: Path | None
) -> Task:
    """The task that `name` names.

    Args:
      num_questions, seed: of a task whose questions are generated.
      few_shot: how many examples stand before a question; None is as many as the task has.
      examples: a file of questions to take them from; None is the task itself.

    Raises `InputError` if there is none, it cannot be read, or has not so many examples.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "gsm8k":
        if examples is not None:
            raise InputError(f"{name}: has examples of its own; give no --examples")
        shots = FEW_SHOT if few_shot is None else few_shot
        return read_gsm8k_task(Path(rest), name=f"{kind}:{Path(rest).stem}", few_shot=shots)
    task = _read(name, kind if colon else "", rest, num_questions=num_questions, seed=seed)
    if not few_shot:
        return task
    source = None if examples is None else read_jsonl_task(examples, name=str(examples))
    return with_examples(task, few_shot, source=source)


def _read(name: str, kind: str, rest: str, *, num_questions: int, seed: int) -> Task:
    if kind == "reasoning-gym":
        return _reasoning_gym(ReasoningGymTask(rest, seed, num_questions), name)
    if kind == "ifeval":
        return read_ifeval_task(Path(rest), name=f"{kind}:{Path(rest).stem}")
    if kind == "mmlu-dev":
        return read_mmlu_dev_task(rest, name=name)
    if name.endswith(".jsonl"):
        return read_jsonl_task(Path(name), name=Path(name).stem)
    raise InputError(
        f"no task {name!r}; give a file that ends in .jsonl, reasoning-gym:NAME, gsm8k:FILE, "
        f"ifeval:FILE, or mmlu-dev:LANGUAGE ({', '.join(LANGUAGES)})"
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
