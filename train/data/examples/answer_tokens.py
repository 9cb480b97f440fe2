"""A prompt and its answers as tokens: what all answers share, and what each adds to it."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from llama_jax.chat import ChatFormat
from train.data.examples.chat_examples import format_checked
from train.data.examples.preferences import Preference
from train.data.examples.refused_example import RefusedExample, refused_for


class AnswerTokens(NamedTuple):
    """Attributes:
    tokens: int64 [n], what follows the prompt: header, text, and all that ends the message.
    is_said: bool [n], true on what the assistant says and the token that ends its turn.
    """

    tokens: np.ndarray
    is_said: np.ndarray

    @property
    def end(self) -> int:
        """Index of the last token that the assistant says."""
        return int(np.flatnonzero(self.is_said)[-1])

    def without_end_of_turn(self, special_ids: Collection[int]) -> np.ndarray:
        """`is_said` without the special token that ends the turn, where the format has one."""
        said = self.is_said.copy()
        if int(self.tokens[self.end]) in special_ids:
            said[self.end] = False
        return said


class PreferenceTokens(NamedTuple):
    """Attributes:
    prompt: int64 [n], the dialog before the answers, without the header of an answer.
    answers: in the order of the preference's.
    """

    prompt: np.ndarray
    answers: tuple[AnswerTokens, ...]


def preference_tokens(preference: Preference, chat_format: ChatFormat) -> PreferenceTokens:
    """Raises `RefusedExample` if the format cannot express the dialogs, or writes the prompt
    otherwise when an answer follows."""
    with refused_for("chat format"):
        prompt = chat_format.format_dialog(
            preference.messages, tools=preference.tools, add_generation_prompt=False
        )
    n, answers = len(prompt.tokens), []
    for answer in preference.answers:
        dialog = format_checked(preference.dialog(answer), chat_format)
        if (dialog.tokens[:n], dialog.loss_mask[:n]) != (prompt.tokens, prompt.loss_mask):
            raise RefusedExample(
                "chat format",
                "messages: the chat template writes the prompt otherwise when an answer follows, "
                "so answers cannot be compared after one prompt",
            )
        tokens = np.array(dialog.tokens[n:], np.int64)
        is_said = np.array(dialog.loss_mask[n:], bool)
        if not is_said.any():
            raise RefusedExample(
                "chat format", "messages: the chat template does not mark the answer as said"
            )
        answers.append(AnswerTokens(tokens, is_said))
    return PreferenceTokens(np.array(prompt.tokens, np.int64), tuple(answers))
