"""Dialogs brought into the form that Llama Guard judges."""

import pytest

from llama_jax.chat import Message, ToolCall
from llama_jax.errors import InputError
from llama_jax.safety import Turn, guard_turns

ASKED, ANSWERED = Message("user", "Hi"), Message("assistant", "Hello")


def test_the_last_turn_is_judged_and_system_messages_are_left_out():
    dialog = [Message("system", "Be kind."), ASKED, ANSWERED, Message("user", "Bye")]
    turns = (Turn("user", "Hi"), Turn("agent", "Hello"), Turn("user", "Bye"))
    assert guard_turns(dialog) == turns
    assert guard_turns(dialog, judged="user") == turns
    assert guard_turns(dialog, judged="agent") == turns[:2]


def test_messages_of_one_side_are_one_turn():
    dialog = [ASKED, Message("user", "Are you there?"), ANSWERED]
    assert guard_turns(dialog) == (Turn("user", "Hi\n\nAre you there?"), Turn("agent", "Hello"))


def test_tool_calls_and_what_tools_say_are_judged_too():
    call = ToolCall("run", {"code": "rm -rf /\u00e9"})
    dialog = [
        ASKED,
        Message("assistant", "Sure.", (call,)),
        Message("tool", "done"),
        Message("assistant", "", (call, call)),
    ]
    written = '{"name": "run", "parameters": {"code": "rm -rf /\u00e9"}}'
    assert guard_turns(dialog) == (
        Turn("user", "Hi"),
        Turn("agent", f"Sure.\n\n{written}"),
        Turn("user", "done"),
        Turn("agent", f"{written}\n\n{written}"),
    )


@pytest.mark.parametrize(
    "dialog, judged, message",
    [
        ([], "last", "no user or assistant message to judge"),
        ([Message("system", "Be kind.")], "last", "no user or assistant message to judge"),
        ([ASKED], "agent", "no agent message to judge"),
        ([ANSWERED], "last", "the assistant speaks first"),
        ([ANSWERED, ASKED], "user", "the assistant speaks first"),
        ([ASKED, Message("assistant", " \n")], "last", "the last agent message is empty"),
        ([Message("user", "")], "last", "the last user message is empty"),
    ],
)
def test_what_cannot_be_judged_is_refused(dialog, judged, message):
    with pytest.raises(InputError, match=message):
        guard_turns(dialog, judged=judged)
