"""Examples before a question: others of its category, shown with their answers.

A model that is tuned for chat sees them as earlier turns of the dialog, a base model as text with
an empty line between, as in the harness.
"""

import dataclasses

from infer.evaluation.questions import ChoiceQuestion, Task
from llama_jax.errors import InputError


def with_examples(task: Task, count: int, *, source: Task | None) -> Task:
    """`task`, each of its questions with `count` examples: the first of its category in `source`,
    without the question itself.

    Args:
      source: where examples come from; None is the task's own other questions.

    Raises `InputError` if there are too few, or if a question is not one of choices.
    """
    pools: dict[str | None, list[ChoiceQuestion]] = {}
    for question in (source or task).questions:
        pools.setdefault(question.category, []).append(_checked(question, source or task))
    questions = []
    for question in task.questions:
        _checked(question, task)
        pool = pools.get(question.category, [])
        others = [one for one in pool if one.user != question.user][:count]
        if len(others) < count:
            of_category = f" of category {question.category}" if question.category else ""
            raise InputError(
                f"task {task.name}: question {question.name}: {(source or task).name} has "
                f"{len(others)} other questions{of_category}, and --few-shot is {count}"
            )
        questions.append(dataclasses.replace(question, examples=tuple(others)))
    return Task(task.name, tuple(questions))


def _checked(question: object, task: Task) -> ChoiceQuestion:
    if not isinstance(question, ChoiceQuestion):
        raise InputError(
            f"task {task.name}: only questions with choices can be shown as examples, and "
            f"{question.name} has none; write its examples into its messages, and give --few-shot 0"
        )
    return question
