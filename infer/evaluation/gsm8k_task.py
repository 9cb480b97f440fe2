"""GSM8K: grade-school mathematics in words, answered step by step.

The questions are the user's, a file as it is published ("Training Verifiers to Solve Math Word
Problems", arXiv 2110.14168):

    {"question": "...", "answer": "... 3 + 2 = 5 ...\\n#### 5"}

They are asked as in the evaluation of Llama 3.1 8B Instruct, whose prompt and eight examples the
package lm-eval carries; a base model is given the examples of chain-of-thought prompting
(arXiv 2201.11903) that stand there too. Right is an answer whose last number is the right one.
"""

from pathlib import Path
from typing import Any

from infer.evaluation.lm_eval_files import (
    not_as_expected,
    read_task_file,
    rendered,
    tasks_folder,
)
from infer.evaluation.questions import OpenQuestion, Task
from llama_jax.batch_files.json_lines import json_lines, refuse_unknown
from llama_jax.errors import InputError
from llama_jax.verifiers import final_number, verifier_of

FEW_SHOT = 8
"""Examples, where nothing else is said, and at most."""


def read_gsm8k_task(path: Path, *, name: str, few_shot: int) -> Task:
    """The questions of a file. Raises `InputError` that names the line, or what lm-eval lacks."""
    if not 0 <= few_shot <= FEW_SHOT:
        raise InputError(f"{name}: --few-shot must be from 0 to {FEW_SHOT}, not {few_shot}")
    chat = _Prompt("llama3/instruct/gsm8k/gsm8k.yaml", few_shot)
    plain = _Prompt("gsm8k/gsm8k-cot.yaml", few_shot)
    questions = []
    for line, fields, _ in json_lines(path):
        place = f"{path}: line {line}"
        question, answer = _checked(fields, place)
        questions.append(
            OpenQuestion(
                name=f"line-{line}",
                category=None,
                body={"messages": chat.messages(question), "temperature": 0, "max_tokens": 1024},
                plain={
                    "prompt": plain.text(question),
                    "temperature": 0,
                    "max_tokens": 1024,
                    "stop": ["Q:"],  # where a base model asks itself the next question
                },
                verifier=verifier_of({"verifier": "number", "answer": answer}),
            )
        )
    if not questions:
        raise InputError(f"{path}: holds no question")
    return Task(name, tuple(questions))


class _Prompt:
    """What lm-eval's file at `path` puts a question into, with its first `few_shot` examples."""

    def __init__(self, path: str, few_shot: int) -> None:
        file = tasks_folder() / path
        fields = read_task_file(file)
        try:
            self._template = fields["doc_to_text"]
            samples = fields["fewshot_config"]["samples"][:few_shot]
            self._examples = [(self._asked(one["question"]), one["target"]) for one in samples]
        except (KeyError, TypeError) as error:
            raise not_as_expected(file, error) from None
        if len(self._examples) < few_shot:
            raise not_as_expected(file, ValueError(f"{len(self._examples)} examples"))

    def messages(self, question: str) -> list[dict[str, Any]]:
        """Examples as earlier turns."""
        turns = [
            {"role": role, "content": content}
            for asked, target in self._examples
            for role, content in (("user", asked), ("assistant", target))
        ]
        return [*turns, {"role": "user", "content": self._asked(question)}]

    def text(self, question: str) -> str:
        """Examples above, an empty line between."""
        shown = [f"{asked} {target}" for asked, target in self._examples]
        return "\n\n".join([*shown, self._asked(question)])

    def _asked(self, question: str) -> str:
        return rendered(self._template, {"question": question})


def _checked(fields: dict[str, Any], place: str) -> tuple[str, str]:
    """The question, and the number behind `####`."""

    def refuse(reason: str) -> None:
        raise InputError(f"{place}: {reason}")

    refuse_unknown(fields, ("question", "answer"), refuse)
    for name in ("question", "answer"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            refuse(f"{name}: must be a text that is not empty")
    _, mark, answer = fields["answer"].rpartition("####")
    if not mark or final_number(answer) is None:
        refuse("answer: must end in #### and a number")
    return fields["question"], answer.strip()
