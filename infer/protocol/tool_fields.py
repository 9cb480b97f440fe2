"""The fields that offer tools: `tools`, `tool_choice`, `parallel_tool_calls`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infer.engine.request import Constraint
from infer.protocol.body_fields import BodyFields
from infer.protocol.grammar_fields import compiled
from infer.protocol.request_error import RequestError
from infer.protocol.served_model import ServedModel
from llama_jax.chat.tool_definitions import functions_of
from llama_jax.errors import InputError

MAX_TOOLS = 128
"""OpenAI's limit."""


@dataclass(frozen=True)
class OfferedTools:
    """Attributes:
    tools: what the prompt tells the model of, in OpenAI's shape; None for nothing.
    constraint: makes the grammar of one call, where the model must call.
    """

    tools: list[dict[str, Any]] | None = None
    constraint: Callable[[], Constraint] | None = None


def offered_tools(fields: BodyFields, model: ServedModel) -> OfferedTools:
    """What a chat request offers.

    With `tool_choice` none the model is not told of the tools at all: it could not be kept from
    writing a call otherwise. Where it must call (`required` or a named function) the answer is one
    call that fits the function's schema. `strict` functions and `parallel_tool_calls: false` ask
    for what holds only there, and are refused where the model is free to write what it likes.
    """
    tools, strict_at = _tools(fields)
    choice = fields.take("tool_choice")
    parallel = fields.boolean("parallel_tool_calls", True)
    must_call, name = _choice(fields, choice)
    if must_call and not tools:
        fields.refuse("tool_choice", "asks for a call, but there are no tools; add some")
    if not tools or choice == "none":
        return OfferedTools()
    if not model.shows_tools:
        fields.refuse("tools", "this model's chat template does not tell the model of tools")
    if must_call:
        make = compiled("tools", lambda: model.grammars.tool_call(tools, name))
        return OfferedTools(tools, make)
    if strict_at is not None:
        fields.refuse(
            f"{strict_at}.function.strict",
            "holds only where tool_choice makes the model call; ask for that or leave it out",
        )
    if not parallel:
        fields.refuse(
            "parallel_tool_calls",
            "false holds only where tool_choice makes the model call; ask for that or leave it out",
        )
    return OfferedTools(tools)


def _tools(fields: BodyFields) -> tuple[list[dict[str, Any]], str | None]:
    """The tools without `strict`, and where one is strict."""
    given = fields.take("tools")
    if given is None:
        return [], None
    if not isinstance(given, list) or len(given) > MAX_TOOLS:
        fields.refuse("tools", f"must be a list of at most {MAX_TOOLS} tools")
    tools, strict_at = [], None
    for index, tool in enumerate(given):
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            function = BodyFields(tool["function"], place=f"tools[{index}].function")
            if function.boolean("strict", False):
                strict_at = strict_at or f"tools[{index}]"
            kept = {
                name: value
                for name, value in tool["function"].items()
                if name != "strict" and value is not None
            }
            tool = {**tool, "function": kept}
        tools.append(tool)
    try:
        names = [function["name"] for function in functions_of(tools)]
    except InputError as error:
        param = str(error).partition(": ")[0]
        raise RequestError(str(error), param=param) from error
    if len(set(names)) < len(names):
        fields.refuse("tools", "two tools have one name; rename one")
    return tools, strict_at


def _choice(fields: BodyFields, choice: Any) -> tuple[bool, str | None]:
    """Whether the model must call a tool, and which one if that is said."""
    if choice is None or choice in ("none", "auto"):
        return False, None
    if choice == "required":
        return True, None
    problem = (
        'must be "none", "auto", "required" or {"type": "function", "function": {"name": ...}}'
    )
    if not isinstance(choice, dict) or choice.get("type") != "function":
        fields.refuse("tool_choice", problem)
    function = choice.get("function")
    if (
        set(choice) != {"type", "function"}
        or not isinstance(function, dict)
        or set(function) != {"name"}
        or not isinstance(function["name"], str)
    ):
        fields.refuse("tool_choice", problem)
    return True, function["name"]
