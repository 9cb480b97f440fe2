import pytest

from llama_jax.chat.message_dicts import message_to_dict, messages_from_dicts
from llama_jax.chat.messages import Message, ToolCall, is_json_value
from llama_jax.errors import InputError

CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


def test_openai_dialog_becomes_messages():
    messages = messages_from_dicts(
        [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"},
            {"role": "ipython", "content": "sunny"},
        ]
    )
    assert messages == [
        Message("system", "Be brief."),
        Message("user", "ab"),
        Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Paris"}, "c1"),)),
        Message("tool", "sunny", name="get_weather", tool_call_id="c1"),
        Message("tool", "sunny"),
    ]


def test_template_dict_is_openai_shape_with_arguments_as_object():
    (message,) = messages_from_dicts([{"role": "assistant", "content": "x", "tool_calls": [CALL]}])
    assert message_to_dict(message) == {
        "role": "assistant",
        "content": "x",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
            }
        ],
    }


@pytest.mark.parametrize(
    ("name", "stop_reason"), [("brave_search", "end_of_message"), ("other", "end_of_turn")]
)
def test_calls_of_built_in_tools_wait_for_the_tool(name, stop_reason):
    call = {"type": "function", "function": {"name": name, "arguments": {"query": "x"}}}
    dialog = [{"role": "assistant", "tool_calls": [call]}]
    assert messages_from_dicts(dialog)[0].stop_reason == stop_reason
    dialog[0]["stop_reason"] = "end_of_turn"
    assert messages_from_dicts(dialog)[0].stop_reason == "end_of_turn"


def call_with(**changes):
    return {"role": "assistant", "tool_calls": [CALL | changes]}


@pytest.mark.parametrize(
    ("dialog", "fragment"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ({"role": "user", "content": "x"}, "messages"),
        (["hello"], "messages[0].role"),
        ([{"role": "developer", "content": "x"}], "developer"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "contnet": "x"}],
            "messages[1].contnet",
        ),
        ([{"role": "user", "content": "x", "tool_calls": []}], "tool_calls"),
        ([{"role": "user", "content": "x", "name": "bob"}], "name"),
        ([{"role": "user"}], "content: missing"),
        ([{"role": "user", "content": None}], "content: missing"),
        ([{"role": "user", "content": 3}], "content"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "type text"),
        ([{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}], "text part"),
        ([{"role": "assistant", "content": "x", "stop_reason": "length"}], "stop_reason"),
        ([{"role": "assistant", "tool_calls": "f()"}], "tool_calls"),
        ([{"role": "assistant", "tool_calls": [3]}], "tool_calls[0].function"),
        ([call_with(type="custom")], "type"),
        ([call_with(index=0)], "tool_calls[0].index"),
        ([call_with(id=3)], "id"),
        ([call_with(function={"name": "f", "strict": True})], "function.strict"),
        ([call_with(function={"arguments": {}})], "name"),
        ([call_with(function={"name": "f", "arguments": "{"})], "is not JSON"),
        ([call_with(function={"name": "f", "arguments": "[1]"})], "arguments"),
        ([call_with(function={"name": "f", "arguments": '{"a": NaN}'})], "arguments"),
        ([call_with(function={"name": "f", "arguments": "[" * 100_000})], "is not JSON"),
        ([{"role": "tool", "content": "x", "tool_call_id": 3}], "tool_call_id"),
    ],
)
def test_bad_dialog_is_refused_in_one_line(dialog, fragment):
    with pytest.raises(InputError) as error:
        messages_from_dicts(dialog)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "user", "tool_calls": (ToolCall("f"),)},
        {"role": "user", "stop_reason": "end_of_message"},
        {"role": "assistant", "name": "f"},
        {"role": "ipython"},
    ],
)
def test_message_holds_only_what_its_role_has(fields):
    with pytest.raises(InputError):
        Message(**fields)


def test_json_values():
    assert is_json_value({"a": [1, 2.5, None, True, "é", {}]})
    deep = []
    for _ in range(200):
        deep = [deep]
    for value in [float("nan"), float("inf"), (1,), {1: 2}, b"x", {"\udc00": 1}, 1 << 5000, deep]:
        assert not is_json_value(value)
