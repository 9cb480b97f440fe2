"""A grammar for one call of an offered tool, in the JSON form of Llama 3.1.

    {"name": "f", "parameters": {"a": 1}}

which `llama_jax/chat/tool_calls.py` reads back. Each tool's schema is compiled by itself, so that a
`$ref` in it means what it means where it was written.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_jax.chat.tool_definitions import functions_of
from llama_jax.errors import InputError


def tool_call_grammar(
    tools: Sequence[Mapping[str, Any]], name: str | None, *, json_options: Mapping[str, Any]
) -> str:
    """Lark text that admits one call.

    Args:
      tools: in OpenAI's shape.
      name: the only tool that may be called; None admits any.
      json_options: how llguidance writes JSON, put into each schema.

    Raises:
      InputError: a malformed tool, no tool, one that is not offered, or parameters that are no
        object.
    """
    functions = functions_of(tools)
    if name is not None:
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise InputError(f"tool_choice: no tool is named {name!r}; name one of tools")
    if not functions:
        raise InputError("tool_choice: a call is required but there are no tools; add some")
    calls, rules = [], []
    for index, function in enumerate(functions):
        opening = f'{{"name": {json.dumps(function["name"])}, "parameters": '
        calls.append(f'{json.dumps(opening)} parameters_{index} "}}"')
        schema = {**_parameters(function), "x-guidance": dict(json_options)}
        rules.append(f"parameters_{index}: %json {json.dumps(schema)}")
    return "\n".join([f"start: {' | '.join(calls)}", *rules])


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments: OpenAI takes a tool without one to have no arguments."""
    schema = function.get("parameters", {"properties": {}, "additionalProperties": False})
    if schema.get("type", "object") != "object":
        raise InputError(f"tool {function['name']}: parameters must be of type object")
    return {**schema, "type": "object"}
