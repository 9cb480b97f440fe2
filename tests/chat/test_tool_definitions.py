"""Our tool texts against the prompts in Meta's published documents, read from the package."""

import json
import re
from pathlib import Path

import pytest

from llama_jax.chat.tool_definitions import (
    environment_text,
    function_tag_tools_text,
    functions_of,
    json_tools_text,
    python_list_tools_text,
)
from llama_jax.errors import InputError

HELPFUL = "You are a helpful assistant."


@pytest.fixture(scope="module")
def published_messages():
    """The text of every message in every prompt of the two documents."""
    llama_models = pytest.importorskip("llama_models")
    folder = Path(llama_models.__file__).parent
    names = ["llama3_1/prompt_format.md", "llama3_2/text_prompt_format.md"]
    document = "\n".join((folder / name).read_text() for name in names)
    message = re.compile(r"<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
    return [text for prompt in document.split("```") for text in message.findall(prompt)]


@pytest.mark.parametrize(
    ("builtin_tools", "today", "system"),
    [
        (["brave_search", "wolfram_alpha"], "21 September 2024", HELPFUL),
        (["brave_search", "wolfram_alpha", "code_interpreter"], "21 September 2024", HELPFUL),
        (["brave_search", "wolfram_alpha"], None, ""),
        ([], "21 September 2024", HELPFUL),
        (["code_interpreter"], "24 September 2024", ""),
    ],
)
def test_environment(published_messages, builtin_tools, today, system):
    text = environment_text(builtin_tools, today=today, system=system)
    assert text in published_messages


def only(texts):
    (text,) = set(texts)
    return text


def test_json_tools(published_messages):
    published = only(text for text in published_messages if "functions in JSON format:\n{" in text)
    tool = json.loads(published[published.index("{") : published.rindex("}") + 1])
    assert json_tools_text([tool]) == published


def test_function_tag_tools(published_messages):
    published = only(text for text in published_messages if "Think very carefully" in text)
    function = json.loads(re.search(r"^\{.*\}$", published, re.MULTILINE)[0])
    types = {"str": "string", "int": "integer"}
    schema = {
        "type": "object",
        "properties": {
            # Ours sorts parameters, as the document does: give them in another order.
            name: {
                "type": types[parameter["param_type"]],
                "description": parameter["description"],
            }
            for name, parameter in reversed(function["parameters"].items())
        },
        "required": [name for name, value in function["parameters"].items() if value["required"]],
    }
    tool = {"type": "function", "function": {**function, "parameters": schema}}
    assert function_tag_tools_text([tool]) == published


def test_python_list_tools(published_messages):
    published = only(text for text in published_messages if "expert in composing" in text)
    functions = json.loads(published[published.index("\n[\n") :])
    tools = [{"type": "function", "function": function} for function in functions]
    assert python_list_tools_text(tools) == published


def test_schema_details_survive_in_function_tag_format():
    schema = {
        "type": "object",
        "properties": {"unit": {"type": ["string", "null"], "enum": ["C", "F"]}, "x": {}},
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    text = function_tag_tools_text([tool])
    line = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert line["parameters"] == {
        "unit": {"enum": ["C", "F"], "param_type": ["string", "null"], "required": False},
        "x": {"required": False},
    }


@pytest.mark.parametrize(
    ("tool", "fragment"),
    [
        (3, "tools[0]"),
        ({"name": "f"}, "tools[0].name"),
        ({"type": "retrieval", "function": {"name": "f"}}, "tools[0]"),
        ({"type": "function", "function": {}}, "function.name"),
        ({"type": "function", "function": {"name": "f", "strict": True}}, "function.strict"),
        ({"type": "function", "function": {"name": "f", "description": 3}}, "description"),
        ({"type": "function", "function": {"name": "f", "parameters": []}}, "parameters"),
        ({"type": "function", "function": {"name": "f", "description": "\ud800"}}, "tools[0]"),
    ],
)
def test_bad_tool_is_refused_by_name(tool, fragment):
    with pytest.raises(InputError) as error:
        functions_of([tool])
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_schema_is_refused_by_name():
    for schema in ({"properties": []}, {"required": "x"}, {"properties": {"a": 3}}):
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        with pytest.raises(InputError, match="tool f"):
            function_tag_tools_text([tool])
    with pytest.raises(InputError, match="builtin_tools"):
        environment_text(["google"])
