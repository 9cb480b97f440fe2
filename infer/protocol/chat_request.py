"""OpenAI's /v1/chat/completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from infer.engine.request import MAX_LOGPROBS
from infer.protocol.answer_fields import (
    UNSUPPORTED,
    answer_template,
    ignored_fields,
    served_name,
    stream_options,
    with_prompts,
)
from infer.protocol.body_fields import BodyFields
from infer.protocol.grammar_fields import grammar
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.request_error import RequestError
from infer.protocol.served_model import ServedModel
from infer.protocol.tool_fields import offered_tools
from llama_jax.chat import Message, messages_from_dicts
from llama_jax.errors import InputError

# What an assistant's message of an earlier response carries, and what of it says nothing.
_EMPTY_FIELDS = {"annotations": ([],), "tool_calls": ([],)}


def parse_chat(
    body: Mapping[str, Any],
    model: ServedModel,
    *,
    default_seed: int,
    default_max_tokens: int | None = None,
) -> ParsedRequest:
    """What the body of a chat request asks for.

    What it does not say of sampling is the checkpoint's own default (see `sampling_parameters`).
    Special tokens written in a message stay text. A role `developer` is the system's.

    Accepted and without effect, because they change no answer: `user`, `safety_identifier`,
    `prompt_cache_key` and `metadata` (labels), `store: false`, `service_tier` auto or default,
    `modalities: ["text"]`, and what is null.

    Args:
      body: the JSON object.
      default_seed: for a request that names none; 0 <= seed < 2^32.
      default_max_tokens: for a request that says nothing; None for the rest of the context.

    Raises:
      RequestError: naming the field and what to change.
    """
    fields = BodyFields(body)
    name = served_name(fields, model)
    streaming = stream_options(fields)
    ignored_fields(fields)
    fields.only("modalities", (["text"],), "answers are text")
    if model.chat_format is None:
        fields.refuse("messages", "this is a base model, without a chat template; use completions")
    offered = offered_tools(fields, model)
    constraint, grammar_field = grammar(fields, model)
    if constraint is not None and offered.tools:
        fields.refuse(grammar_field.partition(".")[0], "cannot stand beside tools; give one")
    num_logprobs = _num_logprobs(fields)
    max_tokens, max_tokens_field = _max_tokens(fields)
    given_messages = fields.take("messages")
    template = answer_template(
        fields,
        model,
        default_seed=default_seed,
        constraint=constraint or offered.constraint,
        num_logprobs=num_logprobs,
        parse_tools=offered.tools is not None,
    )
    if streaming.stream and template.num_prompt_logprobs is not None:
        fields.refuse("prompt_logprobs", "are not streamed; leave stream out")
    fields.refuse_rest(UNSUPPORTED)
    messages = request_messages(given_messages)
    try:
        prompt = model.chat_format.encode_prompt(messages, tools=offered.tools)
    except InputError as error:
        raise RequestError(f"messages: {error}", param="messages") from error
    answers = with_prompts(
        template,
        [prompt],
        model,
        prompt_field="messages",
        max_tokens=max_tokens,
        max_tokens_field=max_tokens_field,
        default_max_tokens=default_max_tokens,
    )
    return ParsedRequest(
        kind="chat",
        model_name=name,
        answers=answers,
        messages=tuple(messages),
        stream=streaming.stream,
        include_usage=streaming.include_usage,
    )


def request_messages(given: Any) -> Sequence[Message]:
    """The dialog, with what OpenAI's client sends along and says nothing taken away.

    Raises:
      RequestError: naming the message and the field.
    """
    if isinstance(given, list):
        given = [_plain_message(message) for message in given]
    try:
        return messages_from_dicts(given)
    except InputError as error:
        raise RequestError(str(error), param=str(error).partition(": ")[0]) from error


def _plain_message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    kept = {
        name: value
        for name, value in message.items()
        if value is not None and value not in _EMPTY_FIELDS.get(name, ())
    }
    if kept.get("role") == "developer":
        kept["role"] = "system"
    return kept


def _num_logprobs(fields: BodyFields) -> int | None:
    """`logprobs` is a switch here, and `top_logprobs` the number of alternatives."""
    is_asked = fields.boolean("logprobs", False)
    num_top = fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    if num_top and not is_asked:
        fields.refuse("top_logprobs", "belongs to logprobs: true")
    return (num_top or 0) if is_asked else None


def _max_tokens(fields: BodyFields) -> tuple[int | None, str]:
    """The limit under its new name or its old one, and which."""
    new, old = (fields.integer(name, 0) for name in ("max_completion_tokens", "max_tokens"))
    if new is not None and old is not None and new != old:
        fields.refuse("max_tokens", "differs from max_completion_tokens; give one of them")
    return (old, "max_tokens") if new is None else (new, "max_completion_tokens")
