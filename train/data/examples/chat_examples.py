"""A dialog to the example that it is trained on as."""

import numpy as np

from llama_jax.chat import ChatFormat, FormattedDialog
from train.data.examples.dialog import Dialog
from train.data.examples.example import NO_ANSWERS, Example
from train.data.examples.refused_example import RefusedExample, refused_for
from train.data.examples.tool_checks import check_tools


def format_checked(dialog: Dialog, chat_format: ChatFormat) -> FormattedDialog:
    """Tokens and loss mask of a dialog, of which the format writes all.

    Raises:
      RefusedExample: the format cannot express the dialog.
    """
    check_tools(dialog, chat_format)
    with refused_for("chat format"):
        return chat_format.format_dialog(
            dialog.messages, tools=dialog.tools, add_generation_prompt=False
        )


def dialog_example(dialog: Dialog, chat_format: ChatFormat) -> Example:
    """One segment, in which all that the assistant says counts: every turn of it, its tool calls,
    and the tokens that end its turns.

    Raises:
      RefusedExample: the format cannot express the dialog.
    """
    formatted = format_checked(dialog, chat_format)
    if not any(formatted.loss_mask[1:]):
        raise RefusedExample(
            "chat format", "messages: the chat template marks nothing that the assistant says"
        )
    return Example(
        np.array(formatted.tokens, np.int64),
        np.zeros(1, np.int64),
        np.array([formatted.loss_mask], bool),
        NO_ANSWERS,
    )
