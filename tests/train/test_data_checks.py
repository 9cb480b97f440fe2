"""All the data of a run is there and fits, or the field that names it is named."""

import dataclasses

import numpy as np
import pytest

from configs.shakespeare import write_byte_tokenizer
from configs.tiny_cpu import tiny_cpu
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash
from sharding.mesh import MeshShape
from train.config import Source
from train.data.shard_writer import write_rows
from train.data_checks import check_data

MESH = MeshShape(fsdp=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer, and data sets of it that are right or wrong."""
    folder = tmp_path_factory.mktemp("run")
    write_byte_tokenizer(folder / "tokenizer")
    sha256 = tokenizer_hash(load_tokenizer(folder / "tokenizer"))
    right = {"row_length": 16, "vocab_size": 258, "tokenizer_sha256": sha256}
    for name, changes in {
        "rows": {},
        "longer": {"row_length": 32},
        "foreign": {"tokenizer_sha256": "b" * 64},
        "wide": {"vocab_size": 300},
    }.items():
        write_rows(folder / name, [np.arange(1, 101)], **{**right, **changes})
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """A run whose data is all there: 7 rows of 16 tokens."""
    monkeypatch.chdir(folder)
    run = tiny_cpu()
    stages = tuple(
        dataclasses.replace(stage, row_length=16, mixture=(Source("a", "rows", 1.0),))
        for stage in run.stages
    )
    held_out = dataclasses.replace(run.evaluations[0], path="rows", num_rows=7)
    return dataclasses.replace(run, tokenizer="tokenizer", stages=stages, evaluations=(held_out,))


def with_source(run, path):
    second = dataclasses.replace(run.stages[1], mixture=(Source("a", path, 1.0),))
    return dataclasses.replace(run, stages=(run.stages[0], second))


def with_set(run, **changes):
    return dataclasses.replace(
        run, evaluations=(dataclasses.replace(run.evaluations[0], **changes),)
    )


def with_context(run, context_length):
    model = dataclasses.replace(run.model, context_length=context_length)
    return dataclasses.replace(with_set(run, path="longer", num_rows=1), model=model)


PLACE = "stages[1].mixture[0].path: "
MISTAKES = {
    "no tokenizer": (
        lambda run: dataclasses.replace(run, tokenizer="x"), "tokenizer: x: no such file or folder"
    ),
    "no tokenizer in it": (lambda run: dataclasses.replace(run, tokenizer="empty"), "empty: no"),
    "no weights": (
        lambda run: dataclasses.replace(run, initial_weights="x"), "initial_weights: x: no such"
    ),
    "no data": (lambda run: with_source(run, "x"), f"{PLACE}x: there is no such folder"),
    "not prepared": (lambda run: with_source(run, "empty"), f"{PLACE}empty: holds no prepared"),
    "row length": (
        lambda run: with_source(run, "longer"),
        f"{PLACE}longer has rows of 32 tokens, and stages[1].row_length is 16",
    ),
    "tokenizer": (
        lambda run: with_source(run, "foreign"), f"{PLACE}foreign was prepared with another"
    ),
    "vocabulary": (
        lambda run: with_source(run, "wide"), "model.vocab_size: 264 is less than the 300 ids"
    ),
    "no held-out set": (lambda run: with_set(run, path="x"), "evaluations[0].path: x: there is no"),
    "few rows": (lambda run: with_set(run, num_rows=8), "evaluations[0].num_rows: 8 is over the 7"),
    "long rows": (
        lambda run: with_context(run, 16),
        "evaluations[0].path: longer has rows of 32 tokens, over model.context_length 16",
    ),
}  # fmt: skip


def test_data_that_fits_passes(run):
    check_data(run, MESH, begins=True)
    check_data(with_context(run, 32), MESH, begins=True)


def test_initial_weights_are_asked_for_only_where_they_are_read(run):
    """A run that has a checkpoint goes on also where they have been removed."""
    check_data(dataclasses.replace(run, initial_weights="x"), MESH, begins=False)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_missing_or_does_not_fit_is_named(run, mistake):
    change, message = MISTAKES[mistake]
    with pytest.raises(InputError) as error:
        check_data(change(run), MESH, begins=True)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_held_out_rows_that_the_mesh_cannot_split_are_named(run):
    """Else it would be known at the first evaluation, which may be a day later."""
    check_data(run, MeshShape(fsdp=1, tensor=8), begins=True)
    with pytest.raises(InputError) as error:
        check_data(run, MeshShape(fsdp=1, tensor=3), begins=True)
    assert str(error.value) == (
        "evaluations[0].path: rows has rows of 16 tokens, which do not divide among mesh.context 1 "
        "x mesh.tensor 3; prepare it with a --row-length that is a multiple of 3"
    )
