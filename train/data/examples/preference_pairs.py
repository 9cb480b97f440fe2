"""A preference to the pair that DPO compares: the best answer and the rejected one.

Both segments are whole dialogs, each with the prompt. Of an answer, what counts in its
log-probability is what the assistant says, without the header and without the token that ends the
turn: these are in both answers, and learning to make them less likely in one and more likely in the
other breaks the model (arXiv 2407.21783, section 4.1.4). In the likelihood of the chosen answer,
which the same section adds to the loss, the token that ends the turn counts.
"""

from collections.abc import Collection

import numpy as np

from llama_jax.chat import ChatFormat
from train.data.examples.answer_tokens import preference_tokens
from train.data.examples.example import NO_ANSWERS, Example
from train.data.examples.preferences import Preference
from train.data.examples.refused_example import RefusedExample


def pair_example(
    preference: Preference,
    chat_format: ChatFormat,
    *,
    special_ids: Collection[int],
    count_end_of_turn: bool,
) -> Example:
    """Two segments with the masks `loss_mask` and `nll_mask`.

    Args:
      preference: what was edited is taken before what was chosen.
      chat_format: writes the dialogs.
      special_ids: of the tokenizer; one of them may end a turn.
      count_end_of_turn: `loss_mask` counts the token that ends the turn too.

    Raises:
      RefusedExample: the format cannot express the dialogs, or both answers are the same tokens.
    """
    prompt, answers = preference_tokens(preference, chat_format)
    tokens, said, counted = [], [], []
    for answer in (answers[0], answers[-1]):
        tokens += [prompt, answer.tokens]
        said += [np.zeros(len(prompt), bool), answer.is_said]
        counts = answer.is_said if count_end_of_turn else answer.without_end_of_turn(special_ids)
        counted += [np.zeros(len(prompt), bool), counts]
    if np.array_equal(tokens[1], tokens[3]):
        raise RefusedExample(
            "identical answers", "chosen and rejected: the chat format writes the same of both"
        )
    return Example(
        np.concatenate(tokens),
        np.array([0, len(tokens[0]) + len(tokens[1])]),
        np.stack([np.concatenate(counted), np.concatenate(said)]),
        NO_ANSWERS,
    )
