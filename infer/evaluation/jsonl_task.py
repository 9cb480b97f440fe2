"""Questions of a JSONL file of the user's: multiple choice, or rows of a batch job that say how
they are verified.

    {"question": "...", "choices": ["...", "..."], "answer": 1}      also "id" and "category"
    {"messages": [...], "metadata": {"verifier": "exact", "answer": "..."}}

`answer` is the place of the right choice, from 0, or its text.
"""

from pathlib import Path
from typing import Any

from infer.evaluation.questions import ChoiceQuestion, OpenQuestion, Question, Task
from llama_jax.batch_files.batch_row import parse_batch_row
from llama_jax.batch_files.json_lines import refuse_unknown, text_lines
from llama_jax.errors import InputError
from llama_jax.json_file import parse_json
from llama_jax.verifiers import verifier_of

_CHOICE_FIELDS = ("question", "choices", "answer", "id", "category")


def read_jsonl_task(path: Path, *, name: str) -> Task:
    """The questions of a file. Raises `InputError` that names the line and the field."""
    questions: list[Question] = []
    names: dict[str, int] = {}
    for line, text, _ in text_lines(path):
        try:
            fields = parse_json(text, "the row")
            question = _choice(fields, line) if "question" in fields else _open(text, line)
            if question.name in names:
                raise InputError(f"{question.name!r} is the name of line {names[question.name]}")
        except InputError as error:
            raise InputError(f"{path}: line {line}: {error}") from None
        names[question.name] = line
        questions.append(question)
    if not questions:
        raise InputError(f"{path}: holds no question")
    return Task(name, tuple(questions))


def _choice(fields: dict[str, Any], line: int) -> ChoiceQuestion:
    refuse_unknown(fields, _CHOICE_FIELDS, _refuse)
    question, choices, answer = (fields.get(name) for name in _CHOICE_FIELDS[:3])
    if not isinstance(question, str) or not question.strip():
        _refuse("question: must be a text that is not empty")
    is_texts = isinstance(choices, list) and all(
        isinstance(choice, str) and choice.strip() for choice in choices
    )
    if not is_texts or len(set(choices)) < len(choices) or len(choices) < 2:
        _refuse("choices: must be two or more different texts")
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        _refuse(f"answer: must be a place in choices, from 0, or one of them, not {answer!r}")
    for name in ("id", "category"):
        if not isinstance(fields.get(name), str | None) or fields.get(name) == "":
            _refuse(f"{name}: must be a text that is not empty")
    return ChoiceQuestion(
        name=fields.get("id") or f"line-{line}",
        category=fields.get("category"),
        user=question,
        lead="",
        plain=f"Question: {question}\nAnswer:",
        choices=tuple(choices),
        answer=answer,
    )


def _open(text: bytes, line: int) -> OpenQuestion:
    row = parse_batch_row(text, line)
    if not row.is_plain:
        _refuse("url: give a plain row, with messages or prompt beside its sampling fields")
    body = {name: value for name, value in row.body.items() if name != "metadata"}
    return OpenQuestion(row.custom_id, row.category, body, verifier_of(row.metadata))


def _refuse(reason: str) -> None:
    raise InputError(reason)
