"""The fields that hold an answer to a grammar: OpenAI's `response_format` and vLLM's own."""

import json
from collections.abc import Callable
from typing import Any

from infer.engine.request import Constraint
from infer.protocol.body_fields import BodyFields
from infer.protocol.request_error import RequestError
from infer.protocol.served_model import ServedModel
from llama_jax.errors import InputError

NewConstraint = Callable[[], Constraint]
_GUIDED = ("json", "regex", "choice", "grammar")


def grammar(fields: BodyFields, model: ServedModel) -> tuple[NewConstraint | None, str]:
    """The constraint that the fields ask for, and the field.

    `response_format` is text, json_object or json_schema, which is always enforced, `strict` or
    not. vLLM's fields are `structured_outputs` with one of json, json_object, regex, choice and
    grammar (Lark), and the older `guided_json` and so on.
    """
    asked: list[tuple[str, str, Any]] = []  # field, kind, value
    asked += _response_format(fields)
    asked += _structured_outputs(fields)
    for kind in _GUIDED:
        value = fields.take(f"guided_{kind}")
        if value is not None:
            asked.append((f"guided_{kind}", kind, value))
    if not asked:
        return None, ""
    if len(asked) > 1:
        fields.refuse(asked[1][0], f"cannot stand beside {asked[0][0]}; give one of them")
    ((field, kind, value),) = asked
    return compiled(field, lambda: _compile(model, field, kind, value)), field


def compiled(field: str, compile: Callable[[], NewConstraint]) -> NewConstraint:
    """What `compile` makes; what is wrong with the grammar is an error of `field`."""
    try:
        return compile()
    except RequestError:
        raise
    except InputError as error:
        raise RequestError(f"{field}: {error}", param=field) from error


def _compile(model: ServedModel, field: str, kind: str, value: Any) -> NewConstraint:
    if kind == "json_object":
        return model.grammars.json_object()
    if kind == "json":
        return model.grammars.json_schema(_schema(field, value))
    if kind == "choice":
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise RequestError(f"{field}: must be a list of texts", param=field)
        return model.grammars.choice(value)
    if not isinstance(value, str):
        raise RequestError(f"{field}: must be text", param=field)
    return model.grammars.regex(value) if kind == "regex" else model.grammars.lark(value)


def _schema(field: str, value: Any) -> dict[str, Any]:
    """A schema, which vLLM also takes as JSON in a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RequestError(f"{field}: is not JSON", param=field) from None
    if not isinstance(value, dict):
        raise RequestError(f"{field}: must be a JSON Schema object", param=field)
    return value


def _response_format(fields: BodyFields) -> list[tuple[str, str, Any]]:
    value = fields.take("response_format")
    if value is None:
        return []
    format_fields = BodyFields(value, place="response_format")
    kind = format_fields.text("type")
    if kind == "json_schema":
        place = "response_format.json_schema"
        schema_fields = BodyFields(format_fields.take("json_schema"), place=place)
        schema = schema_fields.take("schema")
        if schema is None:
            schema_fields.refuse("schema", "is missing")
        # What names it for the reader; and it is enforced, strict or not.
        schema_fields.text("name")
        schema_fields.text("description")
        schema_fields.boolean("strict", False)
        schema_fields.refuse_rest()
        asked = [(f"{place}.schema", "json", schema)]
    elif kind in ("text", "json_object"):
        asked = [("response_format", kind, None)] if kind == "json_object" else []
    else:
        format_fields.refuse(
            "type",
            f"{kind!r} is not one of text, json_object, json_schema; for {', '.join(_GUIDED)} "
            'write {"structured_outputs": {"regex": ...}}',
        )
    format_fields.refuse_rest()
    return asked


def _structured_outputs(fields: BodyFields) -> list[tuple[str, str, Any]]:
    value = fields.take("structured_outputs")
    if value is None:
        return []
    output_fields = BodyFields(value, place="structured_outputs")
    asked = [
        (f"structured_outputs.{kind}", kind, value)
        for kind in _GUIDED
        if (value := output_fields.take(kind)) is not None
    ]
    if output_fields.boolean("json_object", False):
        asked.append(("structured_outputs.json_object", "json_object", None))
    output_fields.refuse_rest()
    if not asked:
        fields.refuse("structured_outputs", f"give one of json_object, {', '.join(_GUIDED)}")
    return asked
