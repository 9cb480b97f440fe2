"""The fields that say how tokens are chosen."""

import dataclasses
from typing import Any

from infer.protocol.body_fields import BodyFields
from infer.protocol.served_model import ServedModel
from infer.sampling import GREEDY, SamplingParameters
from llama_jax.errors import InputError

_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
# They shape a draw, and at temperature 0 there is none.
_OF_DRAWS = ("top_p", "top_k", "min_p")


def sampling_parameters(
    fields: BodyFields, model: ServedModel, *, default_seed: int
) -> SamplingParameters:
    """The parameters of a request; what it does not name is the checkpoint's own default.

    That is what vLLM does; OpenAI's defaults of 1 for temperature and top_p are those of its own
    models. Where the default is greedy, a `top_p` without a temperature would do nothing, and is
    refused. Beside an explicit temperature of 0 it is accepted: greedy is the limit of any draw.
    """
    given: dict[str, Any] = {name: fields.number(name) for name in _NUMBERS}
    # vLLM writes no limit as -1, transformers as 0.
    top_k = fields.integer("top_k", -1, 2**31 - 1)
    given["top_k"] = 0 if top_k == -1 else top_k
    given["seed"] = fields.integer("seed", 0, 2**32 - 1)
    given["logit_bias"] = _logit_bias(fields, model)
    given["allowed_ids"] = _allowed_ids(fields, model)
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        # One by one, so that an error names its field.
        field = "allowed_token_ids" if name == "allowed_ids" else name
        try:
            dataclasses.replace(GREEDY, **{name: value})
        except InputError as error:
            fields.refuse(field, str(error).removeprefix(name).strip(" :"))
    if "temperature" not in given and model.sampling.temperature == 0:
        for name in _OF_DRAWS:
            if name in given and given[name] != getattr(GREEDY, name):
                fields.refuse(
                    name, "does nothing at this model's default temperature of 0; give one"
                )
    return dataclasses.replace(model.sampling, **{"seed": default_seed, **given})


def token_ids(fields: BodyFields, name: str, model: ServedModel) -> tuple[int, ...] | None:
    """A list of ids of the vocabulary."""
    ids = fields.take(name)
    if ids is None:
        return None
    if not isinstance(ids, list):
        fields.refuse(name, "must be a list of token ids")
    for index, token in enumerate(ids):
        fields.check_integer(f"{name}[{index}]", token, 0, model.tokenizer.vocab_size - 1)
    return tuple(ids)


def _allowed_ids(fields: BodyFields, model: ServedModel) -> tuple[int, ...] | None:
    ids = token_ids(fields, "allowed_token_ids", model)
    return None if ids is None else tuple(dict.fromkeys(ids))


def _logit_bias(fields: BodyFields, model: ServedModel) -> tuple[tuple[int, float], ...] | None:
    """OpenAI's object of ids, which are texts because JSON's keys are, and biases."""
    biases = fields.take("logit_bias")
    if biases is None:
        return None
    if not isinstance(biases, dict):
        fields.refuse("logit_bias", 'must be an object such as {"1234": -100}')
    pairs = []
    for key, bias in biases.items():
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 12):
            fields.refuse("logit_bias", f"{str(key)[:40]!r} is no token id")
        fields.check_integer("logit_bias", int(key), 0, model.tokenizer.vocab_size - 1)
        fields.check_number("logit_bias", bias)
        pairs.append((int(key), float(bias)))
    return tuple(pairs)
