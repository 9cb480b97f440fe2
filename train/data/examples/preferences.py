"""Lines of JSONL to preferences: a prompt and its answers, the best first.

    {"messages": [...], "tools"?: [...], "chosen": ANSWER, "rejected": ANSWER, "edited"?: ANSWER}

ANSWER is a text or an assistant message. What an annotator edited is better than what was chosen,
and that than what was rejected (arXiv 2407.21783, section 4.1.2).
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from llama_jax.chat import Message, messages_from_dicts
from llama_jax.errors import InputError
from train.data.examples.dialog import Dialog, check_answer, check_prompt
from train.data.examples.line_fields import check_fields, check_finish_reasons, tools_of
from train.data.examples.refused_example import RefusedExample, refused_for

# Field -> rank, 0 best.
RANKS = {"edited": 0, "chosen": 1, "rejected": 2}


class Answer(NamedTuple):
    """Attributes:
    rank: the less, the better.
    message: of the assistant.
    """

    rank: int
    message: Message


class Preference(NamedTuple):
    """Attributes:
    messages: the prompt: up to and with the last message before the answers.
    tools: definitions in OpenAI's shape, or None.
    answers: two or more of different ranks, the best first.
    """

    messages: tuple[Message, ...]
    tools: list[dict[str, Any]] | None
    answers: tuple[Answer, ...]

    def dialog(self, answer: Answer) -> Dialog:
        """The prompt with one of its answers."""
        return Dialog((*self.messages, answer.message), self.tools)


def read_preference(fields: Mapping[str, Any], *, ignored: Collection[str] = ()) -> Preference:
    """The preference of a line.

    Args:
      fields: as above, and what every line may have.
      ignored: fields that may be there and are not read.

    Raises:
      RefusedExample: naming the field.
    """
    check_fields(fields, ("messages", "tools", *RANKS), ignored=ignored)
    check_finish_reasons(fields, RANKS)
    given = [name for name in RANKS if fields.get(name) is not None]
    for name in ("messages", "chosen", "rejected"):
        if fields.get(name) is None:
            raise RefusedExample("fields", f"{name}: missing")
    with refused_for("messages"):
        messages = tuple(messages_from_dicts(fields["messages"]))
    check_prompt(messages, field="messages")
    answers = tuple(Answer(RANKS[name], _answer(fields[name], name)) for name in given)
    said: dict[str, str] = {}
    for name, answer in zip(given, answers, strict=True):
        check_answer(answer.message, field=name)
        earlier = said.setdefault(_said(answer.message), name)
        if earlier != name:
            raise RefusedExample(
                "identical answers", f"{name}: is the same as {earlier}, so neither is better"
            )
    return Preference(messages, tools_of(fields), answers)


def _said(message: Message) -> str:
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    return json.dumps([message.content, calls], sort_keys=True)


def _answer(answer: Any, name: str) -> Message:
    with refused_for("messages"):
        if isinstance(answer, str):
            answer = {"content": answer}
        if not isinstance(answer, Mapping):
            raise InputError(f"{name}: must be text or an assistant message")
        if answer.get("role", "assistant") != "assistant":
            raise InputError(f"{name}.role: must be assistant, not {answer['role']!r}")
        try:
            return messages_from_dicts([{"role": "assistant", **answer}])[0]
        except InputError as error:
            raise InputError(str(error).replace("messages[0]", name, 1)) from None
