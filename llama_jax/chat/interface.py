"""What every chat format can do: turn a dialog into tokens and say which of them the model learns.

Two formats exist: Llama 3.1's own (`llama31_format.py`) and whatever a checkpoint's Jinja template
says (`template.py`). `chat_format.py` chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama_jax.chat.messages import Message


@dataclass(frozen=True)
class FormattedDialog:
    """A dialog as the model reads it.

    Attributes:
      tokens: the ids, BOS included where the format has one.
      loss_mask: as long as `tokens`; 1 where the assistant speaks (its text, its tool calls and the
        token that ends the message), 0 on headers and on everything said by others.
    """

    tokens: tuple[int, ...]
    loss_mask: tuple[int, ...]


class ChatFormat(Protocol):
    """Dialogs to tokens. Text of a message never becomes a special token.

    Attributes:
      name: `llama31` or `template`; says which format is in use.
    """

    name: str

    def format_dialog(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> FormattedDialog:
        """Tokens and loss mask.

        Args:
          messages: the dialog, not empty.
          tools: definitions in OpenAI's shape: `{"type": "function", "function": {"name",
            "description", "parameters": JSON Schema}}`.
          add_generation_prompt: append the header of an assistant message for the model to write.

        Raises:
          InputError: the format cannot express this dialog, or cannot tell the assistant's part.
        """
        ...

    def encode_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Tokens of `format_dialog` with the generation prompt, for answering: no loss mask is
        made, so templates that rewrite earlier turns, which have none, work too."""
        ...

    def definition(self) -> Mapping[str, Any]:
        """All that decides the tokens of a dialog besides the tokenizer, as a JSON object: what
        `chat_format_hash` hashes."""
        ...
