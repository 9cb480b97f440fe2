"""Stop strings are found in the text, however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.answers.stop_strings import StopStrings

texts = st.text("ab", max_size=30)
stops = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def cut(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def first_stop(text, strings):
    """The oracle: the least (end, start) over every occurrence."""
    found = [
        (end, start)
        for end in range(len(text) + 1)
        for start in range(end)
        if text[start:end] in strings
    ]
    return min(found, default=None)


@given(text=texts, strings=stops, cuts=st.lists(st.integers(0, 30), max_size=10))
def test_the_first_complete_stop_string_is_found_in_any_pieces(text, strings, cuts):
    search = StopStrings(strings)
    found = next((stop for piece in cut(text, cuts) if (stop := search.push(piece))), None)
    expected = first_stop(text, strings)
    assert (None if found is None else (found.end, found.start)) == expected
    if found is not None:
        assert found.string == text[found.start : found.end]


@given(text=texts, strings=stops, cuts=st.lists(st.integers(0, 30), max_size=10))
def test_what_is_held_is_the_longest_end_that_may_begin_a_stop_string(text, strings, cuts):
    search = StopStrings(strings)
    for piece in cut(text, cuts):
        search.push(piece, may_stop=False)
    ends = [
        length
        for length in range(len(text) + 1)
        for string in strings
        if length < len(string) and text.endswith(string[:length])
    ]
    assert search.num_held == max(ends, default=0)


def test_a_stop_string_that_may_not_stop_yet_is_text():
    search = StopStrings(["ab"])
    assert search.push("ab", may_stop=False) is None
    # Begun before, complete now.
    assert search.push("a", may_stop=False) is None
    assert search.push("b") == ("ab", 2, 4)


@pytest.mark.parametrize("strings", [(), ("end",)])
def test_text_without_a_stop_string_is_not_held(strings):
    search = StopStrings(strings)
    assert search.push("Hello, world!") is None
    assert search.num_held == 0
