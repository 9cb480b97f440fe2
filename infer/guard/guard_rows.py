"""Rows of a file to what is judged in them.

A row is a dialog, `{"messages": [...]}`, or a user's message, `{"prompt": "..."}`; an `answer`, a
text or a message, may follow either. It may have a `custom_id`, and `tools`, `category`,
`provenance` and `metadata`, which are not judged. Questions of a batch job are such rows too: what
says how they are to be answered, such as `n` or `temperature`, is not looked at. Neither is the
rest of the body of a row in OpenAI's batch format, which is judged for what it asks.
"""

from collections.abc import Mapping
from typing import Any

from infer.protocol.chat_request import request_messages
from llama_jax.batch_files.batch_row import CHAT_URL, BatchRow
from llama_jax.chat import Message, messages_from_dicts
from llama_jax.errors import InputError

_FIELDS = ("messages", "prompt", "answer")
_NOT_JUDGED = ("tools", "category", "provenance", "metadata")
# How a question of a batch job is to be answered.
_OF_ANSWERING = frozenset(
    "model n seed temperature top_p top_k min_p frequency_penalty presence_penalty "
    "repetition_penalty logit_bias allowed_token_ids max_tokens max_completion_tokens min_tokens "
    "stop stop_token_ids ignore_eos include_stop_str_in_output skip_special_tokens logprobs "
    "top_logprobs prompt_logprobs tool_choice parallel_tool_calls response_format "
    "structured_outputs user".split()
)


def row_messages(row: BatchRow) -> list[Message]:
    """The dialog of `row`. Raises `InputError` that names the field."""
    body: Mapping[str, Any] = row.body
    if not row.is_plain:
        name = "messages" if row.url == CHAT_URL else "prompt"
        body = {name: body.get(name)}
    elif unknown := sorted(body.keys() - {*_FIELDS, *_NOT_JUDGED, *_OF_ANSWERING}):
        known = ", ".join(("custom_id", *_FIELDS, *_NOT_JUDGED))
        raise InputError(f"{unknown[0][:80]}: is no field of a row to be judged; known: {known}")
    messages = _question(body)
    if "answer" in body:
        if messages[-1].role == "assistant":
            raise InputError("answer: the messages end with the assistant's already; leave one out")
        messages.append(_answer(body["answer"]))
    return messages


def _question(body: Mapping[str, Any]) -> list[Message]:
    if "messages" in body:
        return list(request_messages(body["messages"]))
    if not isinstance(body["prompt"], str):
        raise InputError("prompt: must be one text, as a guard reads it")
    return [Message("user", body["prompt"])]


def _answer(given: Any) -> Message:
    if isinstance(given, str):
        return Message("assistant", given)
    try:
        (message,) = messages_from_dicts([given])
    except InputError as error:
        raise InputError(str(error).replace("messages[0]", "answer")) from None
    if message.role != "assistant":
        raise InputError(f"answer.role: must be assistant, not {message.role}")
    return message
