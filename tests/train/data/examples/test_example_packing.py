"""Whole examples in rows: none split, none lost, and bytes that give back what was written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.examples.example import NO_ANSWERS, Example, joined
from train.data.examples.example_packing import Window, best_fit, plan_windows
from train.data.examples.example_record import decode_example, encode_example
from train.data.examples.example_row import example_row, room

ROOM = 20
lengths = st.lists(st.integers(1, ROOM), max_size=60)


@given(lengths)
def test_every_example_is_in_one_row_that_has_room_for_it(lengths):
    rows = best_fit(lengths, room=ROOM)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < tokens <= ROOM for tokens in filled)
    # A new row is begun only for an example that fits in no other: no two rows could be one.
    assert all(a + b > ROOM for i, a in enumerate(filled) for b in filled[:i])
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert all(row == sorted(row) for row in rows)


def test_gaps_are_filled_by_the_short_ones():
    assert best_fit([3, 7, 5, 5, 7, 3], room=10) == [[0, 1], [2, 3], [4, 5]]
    dialogs = np.random.default_rng(0).lognormal(5, 1, 20_000).astype(int).clip(1, 4096)
    rows = best_fit(dialogs.tolist(), room=4096)
    assert dialogs.sum() / (len(rows) * 4096) > 0.998


@given(lengths, st.integers(1, 50))
def test_windows_are_all_examples_in_order(lengths, window_tokens):
    windows = list(plan_windows(lengths, window_tokens=window_tokens))
    edges = [0, *(window.stop for window in windows)]
    assert windows == [Window(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    assert edges[-1] == len(lengths)
    sums = [sum(lengths[window.first : window.stop]) for window in windows]
    assert all(tokens >= window_tokens for tokens in sums[:-1])
    assert all(tokens < window_tokens + ROOM for tokens in sums)


@st.composite
def examples(draw, kind):
    """Some examples of a kind, each of at most ROOM tokens below 100."""

    def part(most):
        return draw(st.lists(st.integers(0, 99), min_size=2, max_size=most))

    made = []
    for _ in range(draw(st.integers(1, 8))):
        parts = [part(ROOM // 2), part(ROOM // 2)] if kind == "pairs" else [part(ROOM)]
        tokens = np.array(sum(parts, []))
        num_masks = {"dialogs": 1, "pairs": 2, "groups": 0}[kind]
        masks = np.array(
            [
                draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
                for _ in range(num_masks)
            ],
            bool,
        ).reshape(num_masks, len(tokens))
        answers = NO_ANSWERS
        if kind == "groups":
            ends = sorted(draw(st.sets(st.integers(0, len(tokens) - 1), min_size=2, max_size=4)))
            answers = np.array([[end, draw(st.integers(-5, 5))] for end in ends])
        starts = np.array([0] if len(parts) == 1 else [0, len(parts[0])])
        made.append(Example(tokens, starts, masks, answers))
    return made


@pytest.mark.parametrize("kind", ["dialogs", "pairs", "groups"])
def test_rows_unpack_to_the_examples_exactly(kind):
    row_length = ROOM if kind == "groups" else ROOM - 1
    assert room(kind, row_length=row_length) == ROOM

    @given(examples(kind))
    def check(examples):
        rows = best_fit([len(example.tokens) for example in examples], room=ROOM)
        slots = max(sum(examples[n].num_slots for n in row) for row in rows)
        for numbers in rows:
            packed = [examples[number] for number in numbers]
            record = encode_example(joined(packed), vocab_size=100)
            decoded = decode_example(record, vocab_size=100)
            row = example_row(decoded, kind, row_length=row_length, slots=slots)
            check_row(row, packed, kind)

    check()


def check_row(row, packed, kind):
    """Unpacks a row by its segment ids, and the answers by their groups."""
    segments = [
        (part, [mask[start:stop] for mask in example.masks])
        for example in packed
        for start, stop in zip(example.starts, [*example.starts[1:], None], strict=True)
        for part in [example.tokens[start:stop]]
    ]
    assert row.segment_ids.max() == len(segments)
    arrays = row.arrays()
    begin = 0
    for number, (tokens, masks) in enumerate(segments, 1):
        assert np.flatnonzero(row.segment_ids == number).tolist() == list(
            range(begin, begin + len(tokens))
        )
        assert row.tokens[row.segment_ids == number].tolist() == tokens.tolist()
        inputs = slice(begin, begin + len(tokens) - 1)  # whose targets are of the segment too
        assert arrays["targets"][inputs].tolist() == tokens[1:].tolist()
        for name, mask in zip(("loss_mask", "nll_mask"), masks, strict=False):
            assert arrays[name][inputs].tolist() == mask[1:].tolist()
            assert not arrays[name][begin + len(tokens) - 1 : begin + len(tokens)].any()
        begin += len(tokens)
    assert not row.tokens[begin:].any() and not row.segment_ids[begin:].any()
    if kind != "groups":
        return
    begin, found = 0, []
    for number, example in enumerate(packed):
        found += [(begin + end, number, rank) for end, rank in example.answers.tolist()]
        begin += len(example.tokens)
    listed = (arrays[f"answer_{name}"].tolist() for name in ("ends", "groups", "ranks"))
    answers = list(zip(*listed, strict=True))
    assert answers[: len(found)] == found
    assert all(answer == (-1, -1, 0) for answer in answers[len(found) :])


GOOD = Example(np.arange(6), np.array([0, 3]), np.ones((2, 6), bool), NO_ANSWERS)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"tokens": np.arange(95, 101)}, "pairs", "token id 100 is outside"),
        ({"starts": np.array([1, 3])}, "pairs", "begin in order"),
        ({"starts": np.array([0, 6])}, "pairs", "begin in order"),
        ({"starts": np.array([0, 2, 4])}, "pairs", "3 segments are no pairs"),
        ({"masks": np.ones((1, 6), bool)}, "pairs", "1 masks and 0 answers are no pairs"),
        ({}, "dialogs", "2 masks and 0 answers are no dialogs"),
        ({"answers": np.array([[6, 0]])}, "pairs", "end in order"),
        ({"answers": np.array([[3, 0], [2, 1]])}, "pairs", "end in order"),
        ({"answers": np.array([[3, 0]])}, "pairs", "2 masks and 1 answers are no pairs"),
        (
            {"masks": np.ones((0, 6), bool), "answers": np.array([[1, 0], [2, 1]])},
            "groups",
            "2 groups or answers where at most 1",
        ),
    ],
)
def test_a_record_that_is_no_row_of_its_kind_is_refused(change, kind, reason):
    record = encode_example(GOOD._replace(**change), vocab_size=100)
    with pytest.raises(ValueError, match=reason):
        row = decode_example(record, vocab_size=100)
        example_row(row, kind, row_length=8, slots=1)
    with pytest.raises(ValueError, match="6 tokens where at most 5"):
        example_row(GOOD, "pairs", row_length=4, slots=1)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_record_are_refused_or_are_an_example(record):
    try:
        example = decode_example(record, vocab_size=100)
        example_row(example, "dialogs", row_length=8, slots=0)
    except ValueError:
        return
    assert example.tokens.max() < 100
