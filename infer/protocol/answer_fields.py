"""The fields that chat and completion requests share, beyond how tokens are chosen."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from infer.answers import AnswerRequest
from infer.engine.request import MAX_LOGPROBS
from infer.protocol.body_fields import BodyFields
from infer.protocol.request_error import RequestError
from infer.protocol.sampling_fields import sampling_parameters, token_ids
from infer.protocol.served_model import ServedModel
from llama_jax.errors import InputError

MAX_SAMPLES = 128
"""Largest `n`, which is OpenAI's."""
MAX_STOP_STRINGS = 32
MAX_STOP_CHARACTERS = 1000
"""Longest stop string: text that may begin one is kept from the reader."""

# Labels for the provider's own records: they change no answer, and nothing is recorded here.
_LABELS = ("user", "safety_identifier", "prompt_cache_key")
# OpenAI's and vLLM's fields that ask for what is not here.
UNSUPPORTED = {
    "audio": "answers are text",
    "bad_words": "use logit_bias",
    "chat_template": "the checkpoint's own is used",
    "chat_template_kwargs": "the checkpoint's own template is used as it is",
    "choice": 'write {"structured_outputs": {"choice": ...}}',
    "continue_final_message": "use completions",
    "documents": "write them into a message",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "grammar": 'write {"structured_outputs": {"grammar": ...}}',
    "json": 'write {"structured_outputs": {"json": ...}}',
    "length_penalty": "there is no beam search",
    "prediction": "leave it out",
    "reasoning_effort": "leave it out",
    "regex": 'write {"structured_outputs": {"regex": ...}}',
    "suffix": "leave it out",
    "truncate_prompt_tokens": "shorten the prompt",
    "verbosity": "leave it out",
    "web_search_options": "leave it out",
}


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """`stream`, and `stream_options.include_usage`."""

    stream: bool
    include_usage: bool


def served_name(fields: BodyFields, model: ServedModel) -> str:
    """`model`, which must be a name of this one; the first where none is given."""
    name = fields.text("model")
    if name is not None and name not in model.names:
        known = ", ".join(model.names)
        raise RequestError(
            f"model: {name[:200]!r} is not served here; use {known}",
            param="model",
            code="model_not_found",
            status=404,
        )
    return name or model.names[0]


def stream_options(fields: BodyFields) -> StreamOptions:
    """Whether to stream, and with the usage at the end."""
    stream = fields.boolean("stream", False)
    given = fields.take("stream_options")
    if given is None:
        return StreamOptions(stream, False)
    if not stream:
        fields.refuse("stream_options", "belongs to stream: true")
    options = BodyFields(given, place="stream_options")
    include_usage = options.boolean("include_usage", False)
    options.only("include_obfuscation", (False,), "chunks are not padded")
    options.refuse_rest()
    return StreamOptions(stream, include_usage)


def ignored_fields(fields: BodyFields) -> None:
    """Checks the fields that nothing depends on, and those that only one value is accepted for."""
    for name in _LABELS:
        fields.text(name)
    # Labels too; OpenAI keeps them beside stored answers.
    if not isinstance(fields.take("metadata"), dict | None):
        fields.refuse("metadata", "must be an object")
    fields.only("store", (False,), "no answer is stored here")
    fields.only("service_tier", ("auto", "default"), "there is one tier")


def answer_template(
    fields: BodyFields, model: ServedModel, *, default_seed: int, **own: Any
) -> AnswerRequest:
    """An `AnswerRequest` with all that the shared fields say, to be completed by `with_prompts`.

    Args:
      own: its attributes that come from fields which are not shared.
    """
    stop_strings = _stop_strings(fields)
    special = model.tokenizer.special_tokens
    stop_ids = {
        *(token_ids(fields, "stop_token_ids", model) or ()),
        # Special tokens have no text in which to find their names, so they stop as ids.
        *(special[text] for text in stop_strings if text in special),
    }
    ignores_eos = fields.boolean("ignore_eos", False)
    min_tokens = fields.integer("min_tokens", 0) or 0
    if own.get("constraint") is not None:
        # A grammar says where the answer may end; kept from ending there, it could not go on.
        for name, given in (("ignore_eos", ignores_eos), ("min_tokens", min_tokens)):
            if given:
                fields.refuse(name, "cannot stand beside a grammar, which says where to end")
    return AnswerRequest(
        prompt=(0,),
        max_new_tokens=2**63,
        sampling=sampling_parameters(fields, model, default_seed=default_seed),
        eos_ids=frozenset() if ignores_eos else model.eos_ids,
        n=fields.integer("n", 1, MAX_SAMPLES) or 1,
        min_new_tokens=min_tokens,
        stop_strings=stop_strings,
        stop_ids=frozenset(stop_ids),
        include_stop=fields.boolean("include_stop_str_in_output", False),
        skip_special=fields.boolean("skip_special_tokens", True),
        num_prompt_logprobs=fields.integer("prompt_logprobs", 0, MAX_LOGPROBS),
        **own,
    )


def with_prompts(
    template: AnswerRequest,
    prompts: Sequence[Sequence[int]],
    model: ServedModel,
    *,
    prompt_field: str,
    max_tokens: int | None,
    max_tokens_field: str,
    default_max_tokens: int | None,
) -> tuple[AnswerRequest, ...]:
    """The template for each prompt, lengths checked. Choice i of the response has the seed plus i,
    so prompts that are alike are not answered alike.

    Args:
      default_max_tokens: where `max_tokens` is None, as far as the context goes; None for all of
        the context.
    """
    answers = []
    for index, prompt in enumerate(prompts):
        room = model.max_length - len(prompt)
        place = prompt_field if len(prompts) == 1 else f"{prompt_field}[{index}]"
        if room < max(1, template.min_new_tokens):
            least = f" and at least {template.min_new_tokens} new ones"
            raise RequestError(
                f"{place}: has {len(prompt)} tokens{least if room > 0 else ''}, and prompt and "
                f"answer share a context of {model.max_length}; shorten it",
                param=place,
                code="context_length_exceeded",
            )
        limit = max_tokens
        if limit is None:
            limit = room if default_max_tokens is None else min(room, default_max_tokens)
        elif limit > room:
            raise RequestError(
                f"{max_tokens_field}: {limit} new tokens after {len(prompt)} of the prompt make "
                f"{limit + len(prompt)}, over the context of {model.max_length}; ask for at most "
                f"{room}, or shorten the prompt",
                param=max_tokens_field,
                code="context_length_exceeded",
            )
        if limit == 0 and template.num_prompt_logprobs is None:
            raise RequestError(
                f"{max_tokens_field}: must be at least 1, not 0, unless the prompt is to be scored "
                "(prompt_logprobs)",
                param=max_tokens_field,
            )
        if limit < template.min_new_tokens:
            raise RequestError(
                f"min_tokens: {template.min_new_tokens} is over the limit of {limit} new tokens",
                param="min_tokens",
            )
        seed = (template.sampling.seed + index * template.n) % 2**32
        sampling = dataclasses.replace(template.sampling, seed=seed)
        try:
            answer = dataclasses.replace(
                template, prompt=tuple(prompt), max_new_tokens=limit, sampling=sampling
            )
        except InputError as error:
            raise RequestError(f"{place}: {error}", param=place) from error
        answers.append(answer)
    return tuple(answers)


def _stop_strings(fields: BodyFields) -> tuple[str, ...]:
    stop = fields.take("stop")
    stop = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > MAX_STOP_STRINGS:
        fields.refuse("stop", f"must be a text, or a list of at most {MAX_STOP_STRINGS}")
    for text in stop:
        fields.check_text("stop", text)
        if not 0 < len(text) <= MAX_STOP_CHARACTERS:
            fields.refuse("stop", f"a stop string has 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stop)
