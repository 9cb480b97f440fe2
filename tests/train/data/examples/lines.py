"""Short ways to write dialogs and preferences, for the tests of examples."""

import numpy as np

from train.data.examples.example_maker import ExampleMaker
from train.data.examples.example_settings import ExampleSettings
from train.data.packed_rows import PackedRows

WORDS = "To be or not to be that is the question of the text and the test".split()


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


def system(content):
    return {"role": "system", "content": content}


def call(name, call_id=None, **arguments):
    fields = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return fields if call_id is None else {"id": call_id, **fields}


def tool(content, **fields):
    return {"role": "tool", "content": content, **fields}


def definition(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def maker(tokenizer, kind, *, chat_format="auto", row_length=4096, **options):
    return ExampleMaker(
        ExampleSettings(
            kind=kind,
            tokenizer=str(tokenizer),
            chat_format=chat_format,
            today=None,
            row_length=row_length,
            **options,
        )
    )


def settings(tokenizer, kind, *, row_length=64, chat_format="template", **options):
    return ExampleSettings(
        kind=kind,
        tokenizer=str(tokenizer),
        chat_format=chat_format,
        today=None,
        row_length=row_length,
        **options,
    )


def random_text(rng, most):
    return " ".join(rng.choice(WORDS, rng.integers(1, most)))


def random_dialogs(number, seed=0, most=12):
    """Dialogs of one or two turns, each begun with its number, so that none is like another."""
    rng = np.random.default_rng(seed)
    lines = []
    for index in range(number):
        messages = []
        for turn in range(rng.integers(1, 3)):
            messages += [user(f"{index} {turn} {random_text(rng, most)}")]
            messages += [assistant(random_text(rng, most))]
        lines.append({"messages": messages})
    return lines


def random_preferences(number, seed=0, most=8):
    rng = np.random.default_rng(seed)
    return [
        {
            "messages": [user(f"{index} {random_text(rng, most)}")],
            "chosen": f"yes {random_text(rng, most)}",
            "rejected": f"no {random_text(rng, most)}",
            **({"edited": f"oh yes {random_text(rng, most)}"} if index % 3 == 0 else {}),
        }
        for index in range(number)
    ]


def segments_of(folder):
    """The tokens of every segment of a prepared folder, and what its row's masks say of them."""
    segments = []
    for row in PackedRows(folder):
        for segment in range(1, row.segment_ids.max(initial=0) + 1):
            where = row.segment_ids == segment
            masks = [getattr(row, name, None) for name in ("loss_mask", "nll_mask")]
            masks = [mask[where].tolist() for mask in masks if mask is not None]
            segments.append((row.tokens[where].tolist(), masks))
    return segments
