"""Cutting the stream of documents into rows, and rows into bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.packing import PackedTokens, count_rows, pack
from train.data.row import decode_row, encode_row

DOCUMENTS = st.lists(
    st.lists(st.integers(0, 99), max_size=30).map(np.array), min_size=1, max_size=12
)


def decoded(documents, row_length):
    return [
        decode_row(encode_row(row, vocab_size=100), vocab_size=100, row_length=row_length)
        for row in pack(documents, row_length=row_length)
    ]


def test_the_example_of_the_docstring():
    first, second, last = pack([np.array([1, 2, 3]), np.array([4, 5, 6, 7, 8])], row_length=3)
    assert [*map(list, first)] == [[1, 2, 3, 4], [0, 3]]
    assert [*map(list, second)] == [[4, 5, 6, 7], [0]]
    assert [*map(list, last)] == [[7, 8], [0]]


@given(DOCUMENTS, st.integers(1, 9))
def test_row_r_is_tokens_rT_to_rT_plus_T_and_segments_number_its_documents(documents, row_length):
    stream = np.concatenate([np.array(document, np.int64) for document in documents])
    document_of = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    rows = decoded(documents, row_length)
    assert len(rows) == count_rows(len(stream), row_length=row_length)
    for number, row in enumerate(rows):
        part = slice(number * row_length, number * row_length + row_length + 1)
        expected, owners = stream[part], document_of[part]
        assert row.tokens.dtype == row.segment_ids.dtype == np.int32
        assert row.tokens.shape == row.segment_ids.shape == (row_length + 1,)
        np.testing.assert_array_equal(row.tokens[: len(expected)], expected)
        _, segments = np.unique(owners, return_inverse=True)
        np.testing.assert_array_equal(row.segment_ids[: len(expected)], segments + 1)
        assert not row.segment_ids[len(expected) :].any() and not row.tokens[len(expected) :].any()
        assert len(expected) == row_length + 1 or number == len(rows) - 1


@given(DOCUMENTS, st.integers(1, 9))
def test_every_token_but_the_first_is_a_target_once(documents, row_length):
    targets = [row.tokens[1:][row.segment_ids[1:] != 0] for row in decoded(documents, row_length)]
    stream = [token for document in documents for token in document]
    assert [token for part in targets for token in part] == stream[1:]


@pytest.mark.parametrize("vocab_size", [65_536, 65_537, 128_256])
def test_the_greatest_token_of_a_vocabulary_survives(vocab_size):
    row = PackedTokens(np.array([vocab_size - 1, 0]), np.array([0]))
    record = encode_row(row, vocab_size=vocab_size)
    assert len(record) == 12 + (4 if vocab_size == 65_536 else 8)
    tokens = decode_row(record, vocab_size=vocab_size, row_length=1).tokens
    assert list(tokens) == [vocab_size - 1, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PackedTokens(np.array([1, 100, 2]), np.array([0])), "token id 100 is outside"),
        (PackedTokens(np.arange(6), np.array([0])), "6 tokens where 2 to 5 must be"),
        (PackedTokens(np.array([1]), np.array([0])), "1 tokens where"),
        (PackedTokens(np.arange(4), np.array([1, 2])), "begin in order"),
        (PackedTokens(np.arange(4), np.array([0, 2, 2])), "begin in order"),
        (PackedTokens(np.arange(4), np.array([0, 4])), "begin in order"),
        (PackedTokens(np.arange(4), np.array([], int)), "begin in order"),
    ],
)
def test_a_record_that_is_no_row_is_refused(row, reason):
    with pytest.raises(ValueError, match=reason):
        decode_row(encode_row(row, vocab_size=100), vocab_size=100, row_length=4)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_record_are_refused_or_are_a_row(record):
    try:
        row = decode_row(record, vocab_size=100, row_length=8)
    except ValueError:
        return
    assert row.tokens.max() < 100 and (np.diff(row.segment_ids[row.segment_ids > 0]) >= 0).all()
