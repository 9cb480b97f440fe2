"""Dialogs to tokens and back: messages, chat formats, tool calls.

`chat_format_for` gives the format of a checkpoint; `interface.py` says what a format can do.
"""

from llama_jax.chat.chat_format import chat_format_for, read_chat_template
from llama_jax.chat.chat_format_hash import chat_format_hash
from llama_jax.chat.interface import ChatFormat, FormattedDialog
from llama_jax.chat.llama31_format import Llama31Format
from llama_jax.chat.llama31_template import LLAMA_31_TEMPLATE
from llama_jax.chat.message_dicts import message_to_dict, messages_from_dicts
from llama_jax.chat.messages import Message, ToolCall
from llama_jax.chat.tool_calls import parse_tool_calls

__all__ = [
    "LLAMA_31_TEMPLATE",
    "ChatFormat",
    "FormattedDialog",
    "Llama31Format",
    "Message",
    "ToolCall",
    "chat_format_for",
    "chat_format_hash",
    "message_to_dict",
    "messages_from_dicts",
    "parse_tool_calls",
    "read_chat_template",
]
