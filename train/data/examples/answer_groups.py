"""A preference to the group that a reward model ranks: one prompt, then all its answers.

The answers stand one after another in one segment, each with its header, in an order of their own
for each group, so that their place tells nothing (arXiv 2407.21783, section 4.1.2). The reward of
an answer is read at the token that ends it.
"""

import hashlib

import numpy as np

from llama_jax.chat import ChatFormat
from train.data.examples.answer_tokens import preference_tokens
from train.data.examples.example import Example
from train.data.examples.preferences import Preference
from train.data.examples.refused_example import RefusedExample


def group_example(preference: Preference, chat_format: ChatFormat, *, seed: int) -> Example:
    """One segment with its answers. Their order follows from `seed` and the tokens alone, wherever
    the preference stands.

    Raises:
      RefusedExample: the format cannot express the dialogs, or two answers are the same tokens.
    """
    prompt, answers = preference_tokens(preference, chat_format)
    if len({answer.tokens.tobytes() for answer in answers}) < len(answers):
        raise RefusedExample(
            "identical answers", "two answers: the chat format writes the same of both"
        )
    content = b"".join(part.tobytes() for part in (prompt, *(answer.tokens for answer in answers)))
    digest = hashlib.sha256(content).digest()
    order = np.random.default_rng([seed, *digest]).permutation(len(answers))
    parts, ends, filled = [prompt], [], len(prompt)
    for number in order:
        ends.append([filled + answers[number].end, preference.answers[number].rank])
        parts.append(answers[number].tokens)
        filled += len(parts[-1])
    return Example(
        np.concatenate(parts), np.zeros(1, np.int64), np.zeros((0, filled), bool), np.array(ends)
    )
