"""Categories of one's own, and those that are left out."""

import json

import pytest

from llama_jax.errors import InputError
from llama_jax.safety import Category, GuardPolicy, read_categories


def test_categories_are_read_in_their_order(tmp_path):
    path = tmp_path / "categories.json"
    fields = {"B2": {"name": "Keys"}, "A1": {"name": "Locks", "description": "No locks."}}
    path.write_text(json.dumps(fields))
    assert read_categories(path) == (Category("B2", "Keys"), Category("A1", "Locks", "No locks."))


@pytest.mark.parametrize(
    "text, message",
    [
        ("{}", "has no category"),
        ('{"C1": "Locks"}', "'C1' must be an object with name"),
        ('{"C1": {"description": "x"}}', "'C1' must be an object with name"),
        ('{"C1": {"name": "Locks", "descripton": "x"}}', "'C1' must be an object with name"),
        ('{"C 1": {"name": "Locks"}}', "category 'C 1': a code is a letter"),
        ('{"1": {"name": "Locks"}}', "category '1': a code is"),
        ('{"C,1": {"name": "Locks"}}', "category 'C,1': a code is"),
        ('{"C1": {"name": ""}}', "category C1: name must be one line"),
        ('{"C1": {"name": "a\\nb"}}', "category C1: name must be one line"),
        ('{"C1": {"name": 5}}', "category C1: name must be one line"),
        ('{"C1": {"name": "a", "description": 5}}', "category C1: description must be text"),
        ('{"C1": {"name": "a"}, "C1": {"name": "b"}}', "a key is given twice"),
    ],
)
def test_bad_files_are_refused_with_their_name(tmp_path, text, message):
    path = tmp_path / "categories.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_categories(path)
    assert str(path) in str(raised.value)
    path.unlink()
    with pytest.raises(InputError, match="there is no such file of categories"):
        read_categories(path)


@pytest.mark.parametrize(
    "code, message",
    [
        ("S15", r"'S15': is unknown; did you mean S5 \(Defamation\) or S1 "),
        ("s10", r"'s10': is unknown; did you mean S10 \(Hate\)"),
        ("Hate", r"'Hate': is unknown; did you mean S10 \(Hate\)"),
        ("violent crime", r"did you mean S1 \(Violent Crimes\)"),
        ("zzz", "'zzz': is unknown; known: S1, S2, S3"),
    ],
)
def test_an_unknown_category_is_named_with_near_ones(code, message):
    with pytest.raises(InputError, match=message):
        GuardPolicy(excluded=frozenset({code}))


def test_something_must_be_left_and_codes_are_one_of_a_kind():
    one = Category("C1", "Locks")
    with pytest.raises(InputError, match="all are excluded"):
        GuardPolicy((one,), excluded=frozenset({"C1"}))
    with pytest.raises(InputError, match="category C1: is there twice"):
        GuardPolicy((one, Category("C1", "Keys")))
