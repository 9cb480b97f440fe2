"""Reading Llama Guard's answer: whatever is not a proper verdict counts as unsafe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.safety import Category, GuardPolicy, Verdict, parse_verdict

POLICY = GuardPolicy(excluded=frozenset({"S2", "S14"}))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("safe", Verdict(True)),
        ("\n\nsafe", Verdict(True)),
        (" safe \n", Verdict(True)),
        ("unsafe\nS1", Verdict(False, ("S1",))),
        ("\n\nunsafe\nS10,S1", Verdict(False, ("S10", "S1"))),
        ("unsafe\nS10, S1 ", Verdict(False, ("S10", "S1"))),
        ("unsafe\r\nS1", Verdict(False, ("S1",))),
        ("unsafe\nS1,S1", Verdict(False, ("S1",))),
        ("unsafe\nS2", Verdict(True, excluded=("S2",))),
        ("unsafe\nS14,S2", Verdict(True, excluded=("S14", "S2"))),
        ("unsafe\nS2,S1", Verdict(False, ("S1",), ("S2",))),
    ],
)
def test_proper_answers(text, expected):
    assert parse_verdict(text, POLICY) == expected


@pytest.mark.parametrize(
    "text, categories, problem",
    [
        ("", (), "neither safe nor unsafe: ''"),
        ("Safe", (), "neither safe nor unsafe"),
        ("SAFE", (), "neither safe nor unsafe"),
        ("safe.", (), "neither safe nor unsafe"),
        ("'safe'", (), "neither safe nor unsafe"),
        ("safety first", (), "neither safe nor unsafe"),
        ("safe\nunsafe\nS1", (), "neither safe nor unsafe"),
        ("safe\nS1", (), "neither safe nor unsafe"),
        ("safe, because it is harmless", (), "neither safe nor unsafe"),
        ("I think that this is safe", (), "neither safe nor unsafe"),
        ("s\u0430fe", (), "neither safe nor unsafe"),  # a Cyrillic letter
        ("sa\u200bfe", (), "neither safe nor unsafe"),
        ("not unsafe", (), "neither safe nor unsafe"),
        ("unsafe S1", (), "neither safe nor unsafe"),
        ("Unsafe\nS1", (), "neither safe nor unsafe"),
        ("unsafe", (), "names no category"),
        ("unsafe\n\nS1", (), "more than two lines"),
        ("unsafe\nS1\nbut it is safe", ("S1",), "more than two lines"),
        ("unsafe\nS2\nsafe", (), "more than two lines"),
        ("unsafe\nS99", (), "unknown category 'S99'"),
        ("unsafe\ns1", (), "unknown category 's1'"),
        ("unsafe\nS1,Hate", ("S1",), "unknown category 'Hate'"),
        ("unsafe\nS1,", ("S1",), "unknown category ''"),
        ("unsafe\nS2,S99", (), "unknown category 'S99'"),
        ("unsafe\nS1 S3", (), "unknown category 'S1 S3'"),
        ("x" * 200, (), "neither safe nor unsafe: 'xxx"),
    ],
)
def test_anything_else_is_unsafe_and_says_why(text, categories, problem):
    verdict = parse_verdict(text, POLICY)
    assert not verdict.is_safe
    assert verdict.categories == categories
    assert verdict.problem.startswith(problem)
    assert "\n" not in verdict.problem and len(verdict.problem) < 100


@pytest.mark.parametrize("text", ["safe", "unsafe\nS2", "unsafe\nS1", ""])
def test_an_answer_that_was_cut_off_is_unsafe(text):
    verdict = parse_verdict(text, POLICY, is_whole=False)
    assert not verdict.is_safe and not verdict.categories
    assert verdict.problem.startswith("the answer was cut off")


def test_categories_of_ones_own():
    policy = GuardPolicy((Category("C1", "Locks"), Category("C2", "Keys")))
    assert parse_verdict("unsafe\nC2", policy) == Verdict(False, ("C2",))
    assert parse_verdict("unsafe\nS1", policy).problem == "unknown category 'S1'"


@given(st.text(alphabet="safeun S12,\n\t", max_size=24) | st.text(max_size=24))
def test_only_two_answers_are_safe(text):
    verdict = parse_verdict(text, POLICY)
    lines = text.strip().split("\n")
    names_excluded_only = (
        len(lines) == 2
        and lines[0].rstrip() == "unsafe"
        and {code.strip() for code in lines[1].split(",")} <= {"S2", "S14"}
    )
    assert verdict.is_safe == (text.strip() == "safe" or names_excluded_only)
