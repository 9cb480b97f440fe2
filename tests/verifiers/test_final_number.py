"""The number that an answer ends with, and whether it is the right one."""

from decimal import Decimal

import pytest

from llama_jax.errors import InputError
from llama_jax.verifiers import final_number, verifier_of


@pytest.mark.parametrize(
    "text, number",
    [
        ("The final answer is 18", 18),
        ("The final answer is 18.", 18),
        ("23 - 15 is 8. The answer is $1,250.50.", "1250.50"),
        ("#### -3", -3),
        ("between 5-10", 10),
        ("so x = (-4)", -4),
        ("**72**", 72),
        ("it costs -$5", -5),
        ("a half, .5", "0.5"),
        ("3 apples, 4 pears; 7 in all (step 2 of 2)", 2),
        ("1,000,000 dollars", 1_000_000),
        ("42%", 42),
        ("none", None),
        ("", None),
        ("٣", None),
    ],
)
def test_it_is_the_last_one(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    "text, score",
    [("... 36 + 36 = 72.", 1.0), ("<answer>72.00</answer> of 100", 1.0), ("71", 0.0), ("", 0.0),
     ("72 or 73", 0.0)],
)  # fmt: skip
def test_right_is_the_same_value(text, score):
    assert verifier_of({"verifier": "number", "answer": "72", "category": "x"})(text) == score


def test_an_answer_that_is_no_number_is_named():
    with pytest.raises(InputError, match="metadata.answer: 'many' is no number"):
        verifier_of({"verifier": "number", "answer": "many"})
    with pytest.raises(InputError, match="metadata.answer: must be str, not 72"):
        verifier_of({"verifier": "number", "answer": 72})
