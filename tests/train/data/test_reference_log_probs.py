"""What a reference policy says of pairs: kept by blocks, read with the rows, never of another."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from llama_jax.errors import InputError
from train.config import Source
from train.data.examples.example import NO_ANSWERS, Example
from train.data.examples.example_record import encode_example
from train.data.manifest import ExamplesInfo, Manifest
from train.data.mixture import Mixture
from train.data.packed_rows import PackedRows
from train.data.reference_log_probs import ReferenceLogProbs, reference_folder
from train.data.reference_log_probs_writer import ReferenceLogProbsWriter
from train.data.shard_writer import shard_name, write_manifest, write_records

from .corpus import files_of

MODEL, OTHER = "a" * 64, "b" * 64
NUM_ROWS, SLOTS = 7, 2


def write_pairs(folder, *, kind="pairs", num_rows=NUM_ROWS, first_token=0, slots=SLOTS):
    """A prepared folder of rows with one pair of three tokens each."""
    folder.mkdir()
    masks = np.array([[0, 0, 1, 0, 0, 1]] * {"pairs": 2, "dialogs": 1}[kind], bool)
    starts = np.array([0, 3] if kind == "pairs" else [0])
    records = [
        encode_example(
            Example(np.arange(6) + first_token + row, starts, masks, NO_ANSWERS), vocab_size=100
        )
        for row in range(num_rows)
    ]
    shard = write_records(folder / shard_name(0), records)
    info = ExamplesInfo(
        kind=kind,
        chat_format="llama31",
        chat_format_sha256="c" * 64,
        today=None,
        slots=slots,
        num_targets=2 * num_rows,
        fill_rate=0.5,
        count_end_of_turn=False,
        seed=0,
        ignored=(),
        dropped={},
    )
    manifest = Manifest(
        tokenizer_sha256="d" * 64,
        vocab_size=100,
        row_length=8,
        num_rows=num_rows,
        num_tokens=6 * num_rows,
        num_documents=num_rows,
        num_empty=0,
        num_skipped=0,
        bos_id=None,
        eos_id=None,
        text_field="",
        on_error="stop",
        shards=(type(shard)(shard.name, shard.num_rows, shard.num_bytes, f"{first_token}"),),
        sources=(),
        examples=info,
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs")


VALUES = -np.arange(NUM_ROWS * SLOTS * 2, dtype=np.float32).reshape(NUM_ROWS, SLOTS, 2)


def write_all(data, *, model=MODEL, values=VALUES, block_rows=3):
    writer = ReferenceLogProbsWriter(data, model_sha256=model, block_rows=block_rows)
    for block in writer.missing():
        writer.write(block, values[block.first : block.stop])
    writer.publish()
    return writer


def test_they_are_read_with_the_rows_and_padded_as_the_mixture_is(pairs, tmp_path):
    write_all(pairs)
    rows = PackedRows(pairs, reference_sha256=MODEL)
    for index in range(NUM_ROWS):
        arrays = rows[index].arrays()
        np.testing.assert_array_equal(arrays["reference_log_probs"], VALUES[index])
        assert arrays["reference_log_probs"].dtype == np.float32
    assert "reference_log_probs" not in PackedRows(pairs)[0].arrays()
    assert len(ReferenceLogProbs(pairs, model_sha256=MODEL)) == NUM_ROWS

    wider = write_pairs(tmp_path / "wider", slots=4)
    write_all(wider, values=np.ones((NUM_ROWS, 4, 2), np.float32))
    sources = (Source("pairs", str(pairs), 1), Source("wider", str(wider), 1))
    mixture = Mixture(sources, row_length=8, seed=0, reference_sha256=MODEL)
    seen = [mixture[index].arrays()["reference_log_probs"] for index in range(2 * NUM_ROWS)]
    assert all(values.shape == (4, 2) for values in seen)
    narrow = sorted(v[:2].tolist() for v in seen if not v[2:].any())
    assert narrow == sorted(VALUES.tolist())


def test_several_models_stand_beside_one_data_set(pairs):
    write_all(pairs)
    write_all(pairs, model=OTHER, values=VALUES + 1)
    assert PackedRows(pairs, reference_sha256=OTHER)[2].reference_log_probs[0, 0] == -7
    assert PackedRows(pairs, reference_sha256=MODEL)[2].reference_log_probs[0, 0] == -8
    assert sorted(child.name for child in pairs.parent.iterdir()) == [
        "pairs",
        "pairs.reference_log_probs",
    ]


def test_those_of_no_model_or_of_another_are_refused(pairs):
    with pytest.raises(InputError, match="no reference log-probabilities of the model aaaa.*of no"):
        PackedRows(pairs, reference_sha256=MODEL)
    write_all(pairs, model=OTHER)
    with pytest.raises(InputError, match="of the model aaaa.*, only of bbbb"):
        PackedRows(pairs, reference_sha256=MODEL)
    os.rename(reference_folder(pairs, OTHER), reference_folder(pairs, MODEL))
    with pytest.raises(InputError, match="has model_sha256 bbbb.*, not aaaa"):
        PackedRows(pairs, reference_sha256=MODEL)


def test_those_of_other_data_are_refused(pairs, tmp_path):
    write_all(pairs)
    other = write_pairs(tmp_path / "other", first_token=10)
    os.rename(reference_folder(pairs, MODEL).parent, f"{other}.reference_log_probs")
    with pytest.raises(InputError, match="is of other pairs .*prepared anew since"):
        PackedRows(other, reference_sha256=MODEL)
    with pytest.raises(InputError, match="is of other pairs"):
        ReferenceLogProbsWriter(other, model_sha256=MODEL, block_rows=3)
    dialogs = write_pairs(tmp_path / "dialogs", kind="dialogs", slots=0)
    with pytest.raises(InputError, match="rows of dialogs, and only pairs.*data preferences --for"):
        PackedRows(dialogs, reference_sha256=MODEL)


def test_a_cut_off_or_damaged_file_is_named(pairs):
    write_all(pairs)
    folder = reference_folder(pairs, MODEL)
    content = (folder / "log_probs.float32").read_bytes()
    (folder / "log_probs.float32").write_bytes(content[:-4])
    with pytest.raises(InputError, match=r"log_probs.float32: must have 112 bytes"):
        PackedRows(pairs, reference_sha256=MODEL)
    (folder / "log_probs.float32").write_bytes(content)
    (folder / "reference.json").write_text('{"surprise": 1}')
    with pytest.raises(InputError, match="reference.json: damaged .*surprise"):
        PackedRows(pairs, reference_sha256=MODEL)


def test_a_value_that_is_not_finite_is_named_by_row_and_pair(pairs):
    writer = ReferenceLogProbsWriter(pairs, model_sha256=MODEL, block_rows=3)
    block = list(writer.missing())[1]
    values = VALUES[block.first : block.stop].copy()
    values[2, 1, 1] = np.nan
    with pytest.raises(InputError, match="the rejected answer of row 5, pair 1 .*nan"):
        writer.write(block, values)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        writer.write(block, values[:2])
    assert [b.number for b in writer.missing()] == [0, 1, 2]


def test_killed_between_blocks_only_the_missing_ones_are_computed(pairs, tmp_path):
    whole = write_pairs(tmp_path / "whole")
    write_all(whole)
    program = (
        "import os, signal, sys, numpy as np\n"
        "from train.data.reference_log_probs_writer import ReferenceLogProbsWriter\n"
        "data, model, kept = sys.argv[1:]\n"
        "values = -np.arange(28, dtype=np.float32).reshape(7, 2, 2)\n"
        "writer = ReferenceLogProbsWriter(data, model_sha256=model, block_rows=3)\n"
        "for count, block in enumerate(writer.missing()):\n"
        "    if count == int(kept):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    writer.write(block, values[block.first : block.stop])\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(pairs), MODEL, "2"])
    assert run.returncode == -9
    with pytest.raises(InputError, match="no reference log-probabilities"):
        PackedRows(pairs, reference_sha256=MODEL)
    with pytest.raises(InputError, match="begun with other block_rows and is not finished"):
        ReferenceLogProbsWriter(pairs, model_sha256=MODEL, block_rows=2)
    writer = ReferenceLogProbsWriter(pairs, model_sha256=MODEL, block_rows=3)
    assert [block.number for block in writer.missing()] == [2] and not writer.is_finished
    (last,) = writer.missing()
    writer.write(last, VALUES[last.first : last.stop])
    writer.publish()
    assert files_of(reference_folder(pairs, MODEL)) == files_of(reference_folder(whole, MODEL))


def test_finished_work_is_not_done_again(pairs):
    write_all(pairs)
    again = ReferenceLogProbsWriter(pairs, model_sha256=MODEL, block_rows=5)
    assert again.is_finished and not list(again.missing())
    again.publish()
    description = json.loads((reference_folder(pairs, MODEL) / "reference.json").read_text())
    assert description["model_sha256"] == MODEL and description["num_rows"] == NUM_ROWS
    with pytest.raises(InputError, match="block_rows must be at least 1"):
        ReferenceLogProbsWriter(pairs, model_sha256=MODEL, block_rows=0)
