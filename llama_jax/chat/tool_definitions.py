"""How the tools on offer are told to a Llama: the system and user texts of Meta's prompt formats.

The fixed sentences are the format itself (the models were trained on them) and are those of
llama-models' `llama3_1/prompt_format.md` and `llama3_2/text_prompt_format.md`; a test compares
with the documents. Tools are given in OpenAI's shape, whatever the text made of them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_jax.chat.messages import BUILTIN_ARGUMENT, is_json_value
from llama_jax.errors import InputError

_PARAM_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}
"""JSON Schema's types in the words of the function-tag format, which are Python's."""


def environment_text(
    builtin_tools: Sequence[str], *, today: str | None = None, system: str = ""
) -> str:
    """The system message that turns tools on.

    `Environment: ipython` alone enables the code interpreter; the other built-in tools are listed.

    Args:
      builtin_tools: of `brave_search`, `wolfram_alpha`, `photogen`, `code_interpreter`.
      today: such as `21 September 2024`; adds the knowledge cutoff and this date.
      system: the instructions, last.
    """
    for name in builtin_tools:
        if name not in BUILTIN_ARGUMENT:
            known = ", ".join(BUILTIN_ARGUMENT)
            raise InputError(f"builtin_tools: {name!r} is not one of {known}")
    listed = [name for name in builtin_tools if name != "code_interpreter"]
    text = "Environment: ipython\n"
    if listed:
        text += "Tools: " + ", ".join(listed)
    text += "\n"
    if today is not None:
        text += f"Cutting Knowledge Date: December 2023\nToday Date: {today}\n"
    if system:
        text += f"\n{system}\n"
    return text


def json_tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """The user message, sent before the first one, that offers `tools` to be called in JSON."""
    definitions = "\n".join(
        _json_block({"type": "function", "function": function}) for function in functions_of(tools)
    )
    return (
        "Answer the user's question by making use of the following functions if needed.\n"
        "If none of the function can be used, please say so.\n"
        "Here is a list of functions in JSON format:\n"
        f"{definitions}\n\n"
        "Return function calls in JSON format."
    )


def function_tag_tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """The user message that offers `tools` to be called as `<function=name>{...}</function>`."""
    definitions = "".join(
        f"Use the function '{function['name']}' to '{function.get('description', '')}':\n"
        f"{json.dumps(_with_python_types(function))}\n\n"
        for function in functions_of(tools)
    )
    return (
        "You have access to the following functions:\n\n"
        f"{definitions}"
        "Think very carefully before calling functions.\n"
        "If you choose to call a function ONLY reply in the following format with no prefix or "
        "suffix:\n\n"
        '<function=example_function_name>{"example_name": "example_value"}</function>\n\n'
        "Reminder:\n"
        "- If looking for real time information use relevant functions before falling back to "
        "brave_search\n"
        "- Function calls MUST follow the specified format, start with <function= and end with "
        "</function>\n"
        "- Required parameters MUST be specified\n"
        "- Only call one function at a time\n"
        "- Put the entire function call reply on one line"
    )


def python_list_tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """The system message (Llama 3.2) that offers `tools` to be called as `[f(a=1), g(b="x")]`."""
    definitions = json.dumps(list(functions_of(tools)), indent=4, ensure_ascii=False)
    return (
        "You are an expert in composing functions. You are given a question and a set of possible "
        "functions.\n"
        "Based on the question, you will need to make one or more function/tool calls to achieve "
        "the purpose.\n"
        "If none of the function can be used, point it out. If the given question lacks the "
        "parameters required by the function,\n"
        "also point it out. You should only return the function call in tools call sections.\n\n"
        "If you decide to invoke any of the function(s), you MUST put it in the format of "
        "[func_name1(params_name1=params_value1, params_name2=params_value2...), "
        "func_name2(params)]\n"
        "You SHOULD NOT include any other text in the response.\n\n"
        "Here is a list of functions in JSON format that you can invoke.\n\n"
        f"{definitions}"
    )


def functions_of(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The `function` of every tool, checked.

    Raises:
      InputError: naming the tool by its index, and the field.
    """
    functions = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not isinstance(tool, Mapping) or not is_json_value(dict(tool)):
            raise InputError(f"{where}: must be an object of JSON values")
        for name in tool:
            if name not in ("type", "function"):
                raise InputError(f"{where}.{name}: unknown field; known: type, function")
        if tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise InputError(f'{where}: must be {{"type": "function", "function": {{...}}}}')
        function = tool["function"]
        for name in function:
            if name not in ("name", "description", "parameters"):
                known = "name, description, parameters"
                raise InputError(f"{where}.function.{name}: unknown field; known: {known}")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise InputError(f"{where}.function.name: must be a non-empty text")
        if not isinstance(function.get("description", ""), str):
            raise InputError(f"{where}.function.description: must be text")
        if not isinstance(function.get("parameters", {}), dict):
            raise InputError(f"{where}.function.parameters: must be a JSON Schema object")
        functions.append(function)
    return functions


def _with_python_types(function: dict[str, Any]) -> dict[str, Any]:
    """`function` with its JSON Schema flattened as the format wants it: one entry a parameter, with
    `param_type` and `required`; whatever else the schema says of it (such as `enum`) is kept."""
    schema = function.get("parameters", {})
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise InputError(f"tool {function['name']}: properties must be an object, required a list")
    parameters = {}
    for name, property_schema in properties.items():
        if not isinstance(property_schema, dict):
            raise InputError(f"tool {function['name']}: parameter {name} must be an object")
        entry = {key: value for key, value in property_schema.items() if key != "type"}
        json_type = property_schema.get("type")
        if isinstance(json_type, str):
            entry["param_type"] = _PARAM_TYPES.get(json_type, json_type)
        elif json_type is not None:
            entry["param_type"] = json_type
        entry["required"] = name in required
        parameters[name] = dict(sorted(entry.items()))
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "parameters": dict(sorted(parameters.items())),
    }


def _json_block(value: Any, depth: int = 0) -> str:
    """JSON indented by four, but with lists of plain values on one line, as the document has it."""
    is_plain_list = isinstance(value, list) and not any(
        isinstance(item, dict | list) for item in value
    )
    if not isinstance(value, dict | list) or not value or is_plain_list:
        return json.dumps(value, ensure_ascii=False)
    margin = "    " * (depth + 1)
    if isinstance(value, dict):
        items = [
            f"{json.dumps(key, ensure_ascii=False)}: {_json_block(item, depth + 1)}"
            for key, item in value.items()
        ]
    else:
        items = [_json_block(item, depth + 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{margin}" + f",\n{margin}".join(items) + f"\n{'    ' * depth}{closing}"
