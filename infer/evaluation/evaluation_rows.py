"""The rows of a batch job that asks all questions of some tasks."""

from collections.abc import Sequence
from typing import Any

from infer.evaluation.choice_rows import choice_rows
from infer.evaluation.questions import ChoiceQuestion, Question, Task
from infer.text_side import TextSide
from llama_jax.chat import ChatFormat
from llama_jax.errors import InputError


def evaluation_rows(
    tasks: Sequence[Task], text: TextSide, chat_format: ChatFormat | None
) -> list[dict[str, Any]]:
    """In the order of the questions; `row_names` says which belong to which.

    Raises `InputError` for a question that cannot be asked of this model.
    """
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for question in task.questions:
            try:
                asked = _rows(question, text, chat_format)
            except InputError as error:
                raise InputError(f"task {task.name}: question {question.name}: {error}") from None
            names = row_names(task, question)
            rows += [{"custom_id": name, **row} for name, row in zip(names, asked, strict=True)]
    return rows


def row_names(task: Task, question: Question) -> list[str]:
    """The `custom_id` of each row of a question."""
    name = f"{task.name}/{question.name}"
    if isinstance(question, ChoiceQuestion):
        return [f"{name}/{place}" for place in range(len(question.choices))]
    return [name]


def _rows(
    question: Question, text: TextSide, chat_format: ChatFormat | None
) -> list[dict[str, Any]]:
    if isinstance(question, ChoiceQuestion):
        return choice_rows(question, text, chat_format)
    if chat_format is None and question.plain is not None:
        return [question.plain]
    if "messages" in question.body and chat_format is None:
        raise InputError(
            "messages: this is a base model, or --format is raw; evaluate one that is tuned for "
            "chat, or write the questions as prompts"
        )
    return [question.body]
