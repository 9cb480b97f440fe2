"""Reading the tool calls in what a Llama wrote. `tool_call_texts.py` writes them.

Four shapes, from Meta's published prompt formats (llama-models, `llama3_1/prompt_format.md` and
`llama3_2/text_prompt_format.md`):

    built-in       brave_search.call(query="...")      code interpreter: the code itself
    json           {"type": "function", "name": "f", "parameters": {"a": 1}}
    function_tag   <function=f>{"a": 1}</function>
    python_list    [f(a=1), g(b="x")]

Reading takes model output, which anyone may have steered: it is parsed, never evaluated, and text
that is not a call is just text, never an error. Where Meta's `ToolUtils` loses information, this
does not: nested objects and apostrophes survive and every call of a list is read. What both can
read, both read alike.
"""

import ast
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

from llama_jax.chat.messages import BUILTIN_ARGUMENT, ToolCall
from llama_jax.errors import InputError

# Bounds what a hostile message can cost Python's parser; a longer one is taken as plain text.
MAX_PYTHON_LIST_CHARACTERS = 100_000

_QUERY_TOOLS = "|".join(name for name, argument in BUILTIN_ARGUMENT.items() if argument == "query")
_BUILTIN_START = re.compile(rf'\s*({_QUERY_TOOLS})\.call\(query="')
_PLAIN_QUERY = re.compile(r'([^"]*)"\)\s*')
_ESCAPED_QUERY = re.compile(r'((?:[^"\\]|\\.)*)"\)\s*', re.DOTALL)
FUNCTION_TAG = re.compile(r"<function=([^<>{}\s]+)>\s*")
FUNCTION_END = "</function>"


def parse_tool_calls(text: str, *, python_tag: bool = False) -> tuple[str, tuple[ToolCall, ...]]:
    """The tool calls in what a model wrote, and the text around them.

    Args:
      text: the message without its header, `<|python_tag|>` and end token.
      python_tag: whether the message began with `<|python_tag|>`; then text that is no other call
        is code for the code interpreter.

    Returns:
      `(content, calls)`. Calls in the first, json and python_list shapes fill the whole message and
      leave no content; `<function=...>` may stand in the middle of text, which is then the content.
    """
    for parse in (_parse_json, _parse_python_list, _parse_builtin):
        if calls := parse(text):
            return "", calls
    if not python_tag or text.lstrip().startswith("<function="):
        content, calls = _parse_function_tags(text)
        if calls:
            return content, calls
    if python_tag:
        return "", _checked_calls([("code_interpreter", {"code": text})])
    return text, ()


def _checked_calls(calls: Sequence[tuple[Any, Any]]) -> tuple[ToolCall, ...]:
    """`calls` if all of them are well formed, else none: half of an answer is not acted on."""
    checked = []
    for name, arguments in calls:
        try:
            call = ToolCall(name, arguments)
        except InputError:
            return ()
        # Models that are given custom tools sometimes call a built-in one in the custom shape, and
        # then make up the argument's name (Meta's decode_assistant_message mends this too).
        if name in BUILTIN_ARGUMENT and len(arguments) == 1:
            call = ToolCall(name, {BUILTIN_ARGUMENT[name]: next(iter(arguments.values()))})
        checked.append(call)
    return tuple(checked)


def _parse_json(text: str) -> tuple[ToolCall, ...]:
    """One object, or several after one another with at most white space or `;` between."""
    decoder = json.JSONDecoder()
    calls = []
    rest = text.strip()
    while rest.startswith("{"):
        try:
            call, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return ()
        if not {"name", "parameters"} <= set(call) <= {"type", "name", "parameters"}:
            return ()
        if call.get("type", "function") != "function":
            return ()
        calls.append((call["name"], call["parameters"]))
        rest = rest[end:].lstrip("; \t\r\n")
    return () if rest else _checked_calls(calls)


def _parse_python_list(text: str) -> tuple[ToolCall, ...]:
    text = text.strip()
    if not text.startswith("[") or len(text) > MAX_PYTHON_LIST_CHARACTERS:
        return ()
    try:
        with warnings.catch_warnings():
            # A stray backslash in a model's text is no business of our log.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
        if not isinstance(tree, ast.List):
            return ()
        return _checked_calls([_python_call(element) for element in tree.elts])
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return ()


def _python_call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    """Name and arguments of `f(a=1)`. Raises ValueError if `node` is anything else."""
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keyword arguments")
    arguments = {}
    for argument in node.keywords:
        if argument.arg is None or argument.arg in arguments:
            raise ValueError("unpacked or repeated argument")
        arguments[argument.arg] = _tuples_to_lists(ast.literal_eval(argument.value))
    return _dotted_name(node.func), arguments


def _dotted_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("not a name")


def _tuples_to_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_tuples_to_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _tuples_to_lists(item) for key, item in value.items()}
    return value


def _parse_builtin(text: str) -> tuple[ToolCall, ...]:
    calls = []
    position = 0
    while position < len(text):
        start = _BUILTIN_START.match(text, position)
        if not start:
            return ()
        query = _PLAIN_QUERY.match(text, start.end())
        if query and (query.end() == len(text) or _BUILTIN_START.match(text, query.end())):
            value = query[1]
        elif query := _ESCAPED_QUERY.match(text, start.end()):
            value = re.sub(r'\\([\\"])', r"\1", query[1])
        else:
            return ()
        calls.append((start[1], {"query": value}))
        position = query.end()
    return _checked_calls(calls)


def _parse_function_tags(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    decoder = json.JSONDecoder()
    calls, around = [], []
    position = 0
    while tag := FUNCTION_TAG.search(text, position):
        try:
            arguments, end = decoder.raw_decode(text, tag.end())
        except (ValueError, RecursionError):
            return text, ()
        around.append(text[position : tag.start()])
        calls.append((tag[1], arguments))
        # The end tag may be missing: generation also stops at an end token.
        closing = re.compile(r"\s*" + FUNCTION_END).match(text, end)
        position = closing.end() if closing else end
    around.append(text[position:])
    return "".join(around).strip(), _checked_calls(calls)
