"""What a reward model reads of an answer: prompt and answer to the token that ends its turn, as in
the rows that it was trained on."""

from pathlib import Path

import numpy as np

from llama_jax.errors import InputError
from train.data.examples.answer_tokens import preference_tokens
from train.data.examples.chat_examples import format_checked
from train.data.examples.dialog import Dialog
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.preferences import Preference


class DialogTokens:
    """Makes token ids of answers, in the model's chat format.

    Args:
      tokenizer: a checkpoint folder, a tokenizer.json or .model.
      chat_format: `auto`, `llama31` or `template`.
      today: the date that a template may write.
      context_length: the most tokens that the model reads.

    Raises `InputError` if there is no such format.
    """

    def __init__(
        self, tokenizer: str | Path, *, chat_format: str, today: str | None, context_length: int
    ) -> None:
        settings = ExampleSettings("groups", str(tokenizer), chat_format, today, context_length)
        self._chat_format = settings.load()[1]
        self._context_length = context_length

    def of_dialog(self, dialog: Dialog) -> np.ndarray:
        """Ids of a dialog that the assistant ends. Raises `InputError` naming the field."""
        formatted = format_checked(dialog, self._chat_format)
        (said,) = np.nonzero(formatted.loss_mask)
        if not len(said):
            raise InputError("messages: the chat template does not mark the answer as said")
        return self._checked(np.array(formatted.tokens[: said[-1] + 1]))

    def of_preference(self, preference: Preference) -> list[np.ndarray]:
        """Ids of each answer with the prompt. Raises `InputError` naming the field."""
        tokens = preference_tokens(preference, self._chat_format)
        return [
            self._checked(np.concatenate([tokens.prompt, answer.tokens[: answer.end + 1]]))
            for answer in tokens.answers
        ]

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        if len(ids) > self._context_length:
            raise InputError(
                f"messages: {len(ids)} tokens with the answer, and the model reads "
                f"{self._context_length}"
            )
        return ids
