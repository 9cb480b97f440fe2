"""Writing tool calls as the text a Llama writes. `tool_calls.py` shows the shapes and reads them.

What Meta's `ToolUtils.encode_tool_call` writes is written the same, except where it could not be
read back: quotes in a text are escaped, objects in `python_list` are Python's, and calls in
`python_list` share one list.
"""

import itertools
import json
import keyword
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from llama_jax.chat.messages import BUILTIN_ARGUMENT, ToolCall
from llama_jax.chat.tool_calls import FUNCTION_END, FUNCTION_TAG
from llama_jax.errors import InputError

ToolPromptFormat = Literal["json", "function_tag", "python_list"]
TOOL_PROMPT_FORMATS = ("json", "function_tag", "python_list")


def check_tool_prompt_format(tool_prompt_format: str) -> None:
    """Raises InputError if there is no such format."""
    if tool_prompt_format not in TOOL_PROMPT_FORMATS:
        known = ", ".join(TOOL_PROMPT_FORMATS)
        raise InputError(f"tool_prompt_format: {tool_prompt_format!r} is not one of {known}")


def tool_call_texts(calls: Sequence[ToolCall], tool_prompt_format: ToolPromptFormat) -> list[str]:
    """The texts of `calls`, in order; the format tokenises each on its own, as Meta's does.

    One text a call, except that in `python_list` consecutive custom calls share one list.

    Raises:
      InputError: a call cannot be written in this format.
    """
    check_tool_prompt_format(tool_prompt_format)
    texts = []
    for builtin, group in itertools.groupby(calls, key=lambda call: call.name in BUILTIN_ARGUMENT):
        if builtin:
            texts.extend(_builtin_text(call) for call in group)
        elif tool_prompt_format == "json":
            texts.extend(_json_text(call) for call in group)
        elif tool_prompt_format == "function_tag":
            texts.extend(_function_tag_text(call) for call in group)
        else:
            texts.append("[" + ", ".join(_python_call_text(call) for call in group) + "]")
    return texts


def _builtin_text(call: ToolCall) -> str:
    argument = BUILTIN_ARGUMENT[call.name]
    if set(call.arguments) != {argument} or not isinstance(call.arguments[argument], str):
        raise InputError(
            f"tool call {call.name}: the built-in tool takes one argument, {argument} (text)"
        )
    if argument == "code":
        return call.arguments["code"]
    query = call.arguments["query"]
    # Meta writes every query as it is. Only one with a quote in it could not be read back so.
    if '"' in query:
        query = query.replace("\\", "\\\\").replace('"', '\\"')
    return f'{call.name}.call(query="{query}")'


def _json_text(call: ToolCall) -> str:
    return json.dumps({"type": "function", "name": call.name, "parameters": dict(call.arguments)})


def _function_tag_text(call: ToolCall) -> str:
    opening = f"<function={call.name}>"
    if not FUNCTION_TAG.fullmatch(opening):
        raise InputError(f"tool call {call.name!r}: the name cannot stand in {opening}")
    return opening + json.dumps(dict(call.arguments)) + FUNCTION_END


def _python_call_text(call: ToolCall) -> str:
    for name in (*call.name.split("."), *call.arguments):
        # Python reads identifiers in their NFKC form, so any other would come back changed.
        is_identifier = name.isidentifier() and not keyword.iskeyword(name)
        if not is_identifier or unicodedata.normalize("NFKC", name) != name:
            raise InputError(f"tool call {call.name!r}: {name!r} is not a Python name; rename it")
    arguments = (f"{name}={_python_literal(value)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


def _python_literal(value: Any) -> str:
    if isinstance(value, str):
        # A JSON string is a Python string; double quotes, as Meta writes them.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_python_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{_python_literal(key)}: {_python_literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    return str(value)
