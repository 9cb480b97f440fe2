"""IFEval (arXiv 2311.07911): 541 prompts with instructions that a program can check.

The prompts are the user's, a file as it is published:

    {"key": 1000, "prompt": "...", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}

`accuracy` is the share of prompts of which every instruction is followed, as the answer stands
(`prompt_level_strict_acc` in lm-eval).
"""

from pathlib import Path

from infer.evaluation.questions import OpenQuestion, Task
from llama_jax.batch_files.json_lines import json_lines, refuse_unknown
from llama_jax.errors import InputError
from llama_jax.verifiers import verifier_of

_FIELDS = ("prompt", "instruction_id_list", "kwargs")


def read_ifeval_task(path: Path, *, name: str) -> Task:
    """The questions of a file. Raises `InputError` that names the line and the field."""
    questions = []
    for line, fields, _ in json_lines(path):

        def refuse(reason: str, line: int = line) -> None:
            raise InputError(f"{path}: line {line}: {reason}")

        refuse_unknown(fields, ("key", *_FIELDS), refuse)
        checked = {field: fields.get(field) for field in _FIELDS}
        try:
            verifier = verifier_of({"verifier": "ifeval", **checked})
        except InputError as error:
            refuse(str(error))
        questions.append(
            OpenQuestion(
                name=str(fields.get("key", f"line-{line}")),
                category=None,
                body={
                    "messages": [{"role": "user", "content": fields["prompt"]}],
                    "temperature": 0,
                    "max_tokens": 1280,
                },
                verifier=verifier,
            )
        )
    names = [question.name for question in questions]
    if not names:
        raise InputError(f"{path}: holds no question")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: the key {max(names, key=names.count)} is there twice")
    return Task(name, tuple(questions))
