"""Lines of JSONL to dialogs: OpenAI's `messages` or ShareGPT's `conversations`."""

from collections.abc import Collection, Mapping
from typing import Any

from llama_jax.chat import messages_from_dicts
from train.data.examples.dialog import Dialog, check_dialog
from train.data.examples.line_fields import check_fields, check_finish_reasons, tools_of
from train.data.examples.refused_example import RefusedExample, refused_for
from train.data.examples.sharegpt import messages_from_conversations


def read_dialog(fields: Mapping[str, Any], *, ignored: Collection[str] = ()) -> Dialog:
    """The dialog of a line.

    Args:
      fields: `messages` or `conversations`, perhaps `tools`, and what every line may have.
      ignored: fields that may be there and are not read.

    Raises:
      RefusedExample: naming the field.
    """
    check_fields(fields, ("messages", "conversations", "tools"), ignored=ignored)
    if ("messages" in fields) == ("conversations" in fields):
        raise RefusedExample(
            "fields", "give a line either messages (OpenAI) or conversations (ShareGPT)"
        )
    check_finish_reasons(fields)
    if "conversations" in fields:
        messages = messages_from_conversations(fields["conversations"])
        check_dialog(messages, field="conversations")
    else:
        with refused_for("messages"):
            messages = messages_from_dicts(fields["messages"])
        check_dialog(messages, field="messages")
    return Dialog(tuple(messages), tools_of(fields))
