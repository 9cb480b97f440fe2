"""A run as JSON: there and back the same, and nothing missing, unknown or of another type."""

import copy
import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.config import ProfileWindow
from train.run_json import flatten, from_dict, read_run, to_dict, write_run
from train.run_source import find_run, named_runs
from train.schedules import Linear


def paths_in(fields, path=()):
    """The path of every value below `fields`."""
    items = fields.items() if isinstance(fields, dict) else enumerate(fields)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths_in(value, (*path, key))


def parent_of(fields, path):
    for key in path[:-1]:
        fields = fields[key]
    return fields


def written(path):
    """As messages write it: `stages[2].batch[0].rows`."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).lstrip(".")


RUN = find_run("llama_405b")
FIELDS = to_dict(RUN)
PATHS = sorted(paths_in(FIELDS), key=str)
NAMED = [path for path in PATHS if isinstance(path[-1], str)]


@pytest.mark.parametrize("name", named_runs())
def test_there_and_back_is_the_same_run(name):
    run = dataclasses.replace(find_run(name), profile=ProfileWindow(3, 2))
    assert from_dict(json.loads(json.dumps(to_dict(run))), place="x") == run


def test_every_field_is_written():
    def fields_of(value):
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield field.name
                yield from fields_of(getattr(value, field.name))
        elif isinstance(value, tuple):
            for part in value:
                yield from fields_of(part)

    assert set(fields_of(RUN)) | {"kind"} == {path[-1] for path in NAMED}


@given(st.sampled_from(NAMED))
def test_a_missing_field_is_named(path):
    fields = copy.deepcopy(FIELDS)
    del parent_of(fields, path)[path[-1]]
    with pytest.raises(InputError, match=r"^there: ") as error:
        from_dict(fields, place="there")
    assert re.search(rf"{re.escape(written(path))}\b", str(error.value))


@given(st.sampled_from(NAMED))
def test_an_unknown_field_is_named(path):
    fields = copy.deepcopy(FIELDS)
    parent_of(fields, path)["surprise"] = 1
    with pytest.raises(InputError, match=r"surprise is unknown"):
        from_dict(fields, place="there")


@settings(max_examples=200)
@given(st.sampled_from(PATHS), st.sampled_from([True, "word", 1.5, float("nan"), [], {}, [3]]))
def test_another_type_is_refused_and_named(path, value):
    fields = copy.deepcopy(FIELDS)
    old = parent_of(fields, path)[path[-1]]  # None where another type is allowed
    is_value_of_its_type = type(old) is type(value) and value == value and value not in ([3], {})
    if is_value_of_its_type or old is None:
        return
    parent_of(fields, path)[path[-1]] = value
    with pytest.raises(InputError) as error:
        from_dict(fields, place="there")
    assert "\n" not in str(error.value) and str(error.value).startswith("there: ")


def test_a_kind_is_one_of_those_that_fit():
    fields = copy.deepcopy(FIELDS)
    fields["stages"][0]["learning_rate"]["kind"] = "Constant"
    with pytest.raises(InputError, match=r"stages\[0\].learning_rate.kind must be one of Warm"):
        from_dict(fields, place="there")


def test_a_run_is_written_into_its_folder_and_read_there(tmp_path):
    run = dataclasses.replace(RUN, output=str(tmp_path / "new" / "run"))
    write_run(run)
    assert read_run(run.output) == run
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["config.json"]


def test_flat_paths_are_those_of_messages():
    flat = flatten(RUN)
    assert flat["stages[1].batch[1].rows"] == 2048
    assert flat["model.num_layers"] == 126
    assert flat["profile"] is None
    changed = dataclasses.replace(RUN.stages[0], learning_rate=Linear(1.0, 0.5))
    other = flatten(dataclasses.replace(RUN, stages=(changed, *RUN.stages[1:])))
    differing = {path for path in {*flat, *other} if flat.get(path) != other.get(path)}
    assert {path.rpartition(".")[0] for path in differing} == {"stages[0].learning_rate"}
