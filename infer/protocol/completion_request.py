"""OpenAI's /v1/completions."""

import dataclasses
from collections.abc import Mapping
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
from infer.protocol.completion_prompts import completion_prompts
from infer.protocol.grammar_fields import grammar
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.served_model import ServedModel

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_CHOICES = 2048
"""Samples of all prompts of a request together."""


def parse_completion(
    body: Mapping[str, Any],
    model: ServedModel,
    *,
    default_seed: int,
    default_max_tokens: int | None = None,
) -> ParsedRequest:
    """What the body of a completion request asks for.

    `prompt` is a text, a list of texts, a list of ids, or a list of lists of ids. Before a text
    stands BOS where the model was trained with it, unless `add_special_tokens` is false. Where a
    text spells a special token, `parse_special` says whether it is meant (true) or is text (false),
    and without it the text is refused: either guess would be wrong for someone.

    `max_tokens: 0` with `echo` and `logprobs`, or with `prompt_logprobs`, scores the prompt.
    Sampling defaults and fields without effect are those of `parse_chat`.

    Args:
      body: the JSON object.
      default_seed: for a request that names none; 0 <= seed < 2^32.
      default_max_tokens: for a request that says nothing; None for OpenAI's 16. Where less of the
        context is left, that.

    Raises:
      RequestError: naming the field and what to change.
    """
    fields = BodyFields(body)
    name = served_name(fields, model)
    streaming = stream_options(fields)
    ignored_fields(fields)
    constraint, _ = grammar(fields, model)
    num_logprobs = fields.integer("logprobs", 0, MAX_LOGPROBS)
    max_tokens = fields.integer("max_tokens", 0)
    is_echoed = fields.boolean("echo", False)
    best_of = fields.integer("best_of", 1)
    prompts = completion_prompts(fields, model)
    template = answer_template(
        fields, model, default_seed=default_seed, constraint=constraint, num_logprobs=num_logprobs
    )
    if best_of not in (None, template.n):
        fields.refuse("best_of", "is not supported; ask for n answers and choose")
    if streaming.stream and template.num_prompt_logprobs is not None:
        fields.refuse("prompt_logprobs", "are not streamed; leave stream out")
    if len(prompts.ids) * template.n > MAX_CHOICES:
        fields.refuse("n", f"{len(prompts.ids)} prompts times {template.n} is over {MAX_CHOICES}")
    fields.refuse_rest(UNSUPPORTED)
    if is_echoed and num_logprobs is not None:
        if template.num_prompt_logprobs is not None:
            fields.refuse("prompt_logprobs", "come with echo and logprobs already; give one")
        template = dataclasses.replace(template, num_prompt_logprobs=num_logprobs)
    answers = with_prompts(
        template,
        prompts.ids,
        model,
        prompt_field="prompt",
        max_tokens=max_tokens,
        max_tokens_field="max_tokens",
        default_max_tokens=default_max_tokens or DEFAULT_MAX_TOKENS,
    )
    special_ids = frozenset(model.tokenizer.special_tokens.values())
    return ParsedRequest(
        kind="completion",
        model_name=name,
        answers=answers,
        stream=streaming.stream,
        include_usage=streaming.include_usage,
        echo=prompts.echoed(skip_special=template.skip_special) if is_echoed else None,
        textless_ids=special_ids if template.skip_special else frozenset(),
    )
