"""Whether a chat format writes the tools and the calls of a dialog, in a way that can be read back.

A chat template takes from a message what it knows; most templates know no tools, and would leave
the calls out without a word. Llama 3.1's own format writes every call, but text before a call, or
calls of a built-in and of another tool in one message, come out as what is no call any more.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from llama_jax.chat import ChatFormat, Llama31Format, Message
from llama_jax.errors import InputError
from train.data.examples.dialog import Dialog
from train.data.examples.refused_example import RefusedExample, refused_for


def check_tools(dialog: Dialog, chat_format: ChatFormat) -> None:
    """Raises `RefusedExample`, naming message and call, if something of them would be lost."""
    calls = any(message.tool_calls for message in dialog.messages)
    if not calls and dialog.tools is None:
        return
    if isinstance(chat_format, Llama31Format):
        for index, message in enumerate(dialog.messages):
            if message.tool_calls:
                _check_read_back(message, chat_format, f"messages[{index}]")
        return
    with refused_for("chat format"):
        tokens = _tokens(dialog, chat_format)
    for what, lesser in _with_less(dialog):
        if _tokens_or_none(lesser, chat_format) == tokens:
            raise RefusedExample(
                "tool calls",
                f"{what}: the chat template writes nothing of it; use a template that knows tools, "
                "or --chat-format llama31",
            )


def _check_read_back(message: Message, chat_format: Llama31Format, place: str) -> None:
    with refused_for("tool calls"):
        formatted = chat_format.format_dialog([message], add_generation_prompt=False)
    pairs = zip(formatted.tokens, formatted.loss_mask, strict=True)
    read = chat_format.decode_assistant_message([token for token, said in pairs if said])
    wanted = tuple(dataclasses.replace(call, call_id=None) for call in message.tool_calls)
    if (read.content, read.tool_calls) != (message.content, wanted):
        raise RefusedExample(
            "tool calls",
            f"{place}.tool_calls: in Llama 3.1's format this message could not be read back as "
            f"{len(wanted)} calls; leave out text beside a call, and give each message calls of "
            "one kind",
        )


def _with_less(dialog: Dialog) -> Iterator[tuple[str, Dialog]]:
    """The dialog without its tools, and without each one call, and what is not in it."""
    if dialog.tools is not None:
        yield "tools", dialog._replace(tools=None)
    for index, message in enumerate(dialog.messages):
        for number in range(len(message.tool_calls)):
            calls = message.tool_calls[:number] + message.tool_calls[number + 1 :]
            messages = list(dialog.messages)
            messages[index] = dataclasses.replace(message, tool_calls=calls)
            place = f"messages[{index}].tool_calls[{number}]"
            yield place, dialog._replace(messages=tuple(messages))


def _tokens(dialog: Dialog, chat_format: ChatFormat) -> Sequence[int]:
    return chat_format.encode_prompt(dialog.messages, tools=dialog.tools)


def _tokens_or_none(dialog: Dialog, chat_format: ChatFormat) -> Sequence[int] | None:
    """None if the format refuses it, for then it looks at what is not there."""
    try:
        return _tokens(dialog, chat_format)
    except InputError:
        return None
