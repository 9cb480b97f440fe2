"""Random walks through the masks of a constraint."""

import random

import numpy as np


def allowed_by(constraint) -> list[int]:
    bits = np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()


def random_answer(tokenizer, new_constraint, eos_ids, *, seed, most=400) -> str:
    """Chooses at random among what the masks allow until the grammar ends the text."""
    chooser = random.Random(seed)
    constraint = new_constraint()
    ids = []
    special = set(tokenizer.special_tokens.values())
    while not constraint.is_finished:
        allowed = allowed_by(constraint)
        assert allowed and max(allowed) < tokenizer.vocab_size
        assert special & set(allowed) in (set(), set(eos_ids))
        token = chooser.choice(allowed)
        constraint.accept(token)
        if token in eos_ids:
            break
        ids.append(token)
        assert len(ids) < most, tokenizer.decode(ids)
    return tokenizer.decode(ids)
