import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.chat.messages import ToolCall
from llama_jax.chat.tool_call_texts import tool_call_texts
from llama_jax.chat.tool_calls import parse_tool_calls
from llama_jax.errors import InputError

unicode_text = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda name: "f_" + name)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unicode_text, inner, max_size=3),
    max_leaves=6,
)
custom_calls = st.builds(ToolCall, names, st.dictionaries(names, json_values, max_size=3))
search_calls = st.builds(
    lambda name, query: ToolCall(name, {"query": query}),
    st.sampled_from(["brave_search", "wolfram_alpha", "photogen"]),
    unicode_text | st.text('\\")( a', max_size=8),
)


@pytest.mark.parametrize("tool_prompt_format", ["json", "function_tag", "python_list"])
@given(calls=st.lists(custom_calls, min_size=1, max_size=3))
def test_custom_calls_survive_writing_and_reading(tool_prompt_format, calls):
    text = "".join(tool_call_texts(calls, tool_prompt_format))
    assert parse_tool_calls(text) == ("", tuple(calls))
    assert parse_tool_calls(text, python_tag=True) == ("", tuple(calls))


@given(calls=st.lists(search_calls, min_size=1, max_size=3))
def test_search_calls_survive_writing_and_reading(calls):
    text = "".join(tool_call_texts(calls, "json"))
    assert parse_tool_calls(text, python_tag=True) == ("", tuple(calls))


@given(unicode_text, st.booleans())
def test_any_text_is_a_message(text, python_tag):
    content, calls = parse_tool_calls(text, python_tag=python_tag)
    assert content == text or calls


FRAGMENTS = [
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    '"',
    "'",
    "\\",
    "f(a=1)",
    ",",
    "<function=f>",
    "</function>",
]
FRAGMENTS += [
    '{"name": "f", "parameters": {}}',
    "brave_search.call(query=",
    '")',
    "\x00",
    "1e999",
    "*",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), st.booleans())
def test_broken_calls_are_text(text, python_tag):
    content, calls = parse_tool_calls(text, python_tag=python_tag)
    assert isinstance(content, str)
    for call in calls:
        json.dumps(call.arguments, allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "[f(a=" + "(" * 50_000,
        "[f(a=" + "-" * 50_000 + "1)]",
        "[f(a=" + "[" * 5_000 + "]" * 5_000 + ")]",
        "[f(a=" + "1+" * 40_000 + "1)]",
        "[f(a=" + "not " * 20_000 + "1)]",
        "[" + "a." * 40_000 + "f()]",
        "[" + "f(a=1)," * 40_000 + "]",
        "[f(a=" + "9" * 10_000 + ")]",
        "[f(a=0x" + "f" * 10_000 + ")]",
        "[f(a=b'x')]",
        "[f(a={1: 2})]",
        "[f(a={1, 2})]",
        "[f(a=1e999)]",
        "[f(a=1, a=2)]",
        "[f(**{'a': 1})]",
        "[f(1)]",
        "[f(a=g())]",
        "[f(a=1), 2]",
        "[f(a=1)](b=2)",
        "[(lambda: f)()(a=1)]",
        "[__import__('os').system(command='exit')]",
        "[f(a=__import__('os'))]",
        "[f(a={'x': 1}.__class__)]",
        "[]",
        "[1, 2]",
        '{"name": "f"}',
        '{"name": "f", "parameters": "x"}',
        '{"name": "f", "parameters": {"a": NaN}}',
        '{"name": ["f"], "parameters": {}}',
        '{"name": "", "parameters": {}}',
        '{"name": "Bob", "parameters": {}, "age": 3}',
        '{"type": "object", "name": "f", "parameters": {}}',
        '{"name": "f", "parameters": {}} and more',
        '{"a": ' * 50_000,
        '{"name": "f", "parameters": ' + '{"a": ' * 500 + "1" + "}" * 500 + "}",
        "<function=f>",
        "<function=f>{",
        "<function=f>[1]</function>",
        "<function=" * 20_000,
        "<function=f>{}</function><function=g>{</function>",
        'session.call(query="SELECT 1")',
        'brave_search.call(query="a',
        'brave_search.call(query="' + '\\"' * 50_000,
        'You could use brave_search.call(query="x") for this.',
        "\x00",
    ],
)
def test_hostile_or_malformed_output_is_plain_text(text):
    assert parse_tool_calls(text) == (text, ())
    content, (call,) = parse_tool_calls(text, python_tag=True)
    assert (content, call) == ("", ToolCall("code_interpreter", {"code": text}))


def test_shapes_that_models_write():
    assert parse_tool_calls("[get_weather(city='San Francisco', metric='celsius'), now()]") == (
        "",
        (ToolCall("get_weather", {"city": "San Francisco", "metric": "celsius"}), ToolCall("now")),
    )
    pretty = '{\n  "type": "function",\n  "name": "f",\n  "parameters": {"a": {"b": [1]}}\n}\n'
    assert parse_tool_calls(pretty) == ("", (ToolCall("f", {"a": {"b": [1]}}),))
    assert parse_tool_calls('<function=f>{"a": {"b": "it\'s"}}') == (
        "",
        (ToolCall("f", {"a": {"b": "it's"}}),),
    )
    assert parse_tool_calls('Let me see. <function=f>{"a": 1}</function> Done.') == (
        "Let me see.  Done.",
        (ToolCall("f", {"a": 1}),),
    )
    assert parse_tool_calls("[math.hypot(x=3, y=(1, 2))]") == (
        "",
        (ToolCall("math.hypot", {"x": 3, "y": [1, 2]}),),
    )
    assert parse_tool_calls('[f(pattern="\\d")]') == ("", (ToolCall("f", {"pattern": "\\d"}),))
    assert parse_tool_calls('{"name": "brave_search", "parameters": {"q": "x"}}') == (
        "",
        (ToolCall("brave_search", {"query": "x"}),),
    )
    code = 'print("<function=f>{}</function>")'
    assert parse_tool_calls(code, python_tag=True) == (
        "",
        (ToolCall("code_interpreter", {"code": code}),),
    )


@pytest.mark.parametrize(
    ("call", "tool_prompt_format"),
    [
        (ToolCall("brave_search", {"q": "x"}), "json"),
        (ToolCall("brave_search", {"query": 3}), "json"),
        (ToolCall("code_interpreter", {}), "json"),
        (ToolCall("a>b"), "function_tag"),
        (ToolCall("get-weather"), "python_list"),
        (ToolCall("f", {"class": 1}), "python_list"),
        (ToolCall("f", {"ﬁ": 1}), "python_list"),
        (ToolCall("f"), "xml"),
    ],
)
def test_calls_that_cannot_be_written_are_refused(call, tool_prompt_format):
    with pytest.raises(InputError):
        tool_call_texts([call], tool_prompt_format)


# What Meta's ToolUtils can express: no quotes in queries; no quotes, backslashes or control
# characters in python_list texts; no nested objects there.
plain_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters='"\\')
)
plain_values = st.none() | st.booleans() | st.integers() | plain_text | st.lists(plain_text)


@given(names, st.dictionaries(names, plain_values, max_size=3), plain_text)
def test_texts_equal_metas_encoder(name, arguments, query):
    datatypes = pytest.importorskip("llama_models.datatypes")
    tool_utils = pytest.importorskip("llama_models.llama3.tool_utils").ToolUtils
    calls = [
        ToolCall(name, arguments),
        ToolCall("brave_search", {"query": query}),
        ToolCall("code_interpreter", {"code": query}),
    ]
    for tool_prompt_format in ("json", "function_tag", "python_list"):
        for call in calls:
            theirs = datatypes.ToolCall(call_id="", tool_name=call.name, arguments=call.arguments)
            expected = tool_utils.encode_tool_call(
                theirs, datatypes.ToolPromptFormat(tool_prompt_format)
            )
            assert tool_call_texts([call], tool_prompt_format) == [expected]


# Meta's reader: flat arguments, no apostrophes in <function=...>.
flat_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\"\\'{}")
)


@pytest.mark.parametrize("tool_prompt_format", ["json", "function_tag", "python_list"])
@given(name=names, arguments=st.dictionaries(names, flat_text | st.integers(), max_size=3))
def test_custom_calls_read_as_metas_parser_reads_them(tool_prompt_format, name, arguments):
    tool_utils = pytest.importorskip("llama_models.llama3.tool_utils").ToolUtils
    (text,) = tool_call_texts([ToolCall(name, arguments)], tool_prompt_format)
    _, (call,) = parse_tool_calls(text)
    assert (call.name, call.arguments) == tool_utils.maybe_extract_custom_tool_call(text)


@given(flat_text)
def test_search_calls_read_as_metas_parser_reads_them(query):
    tool_utils = pytest.importorskip("llama_models.llama3.tool_utils").ToolUtils
    text = f'wolfram_alpha.call(query="{query}")'
    _, (call,) = parse_tool_calls(text, python_tag=True)
    assert (call.name, call.arguments["query"]) == tool_utils.maybe_extract_builtin_tool_call(text)
