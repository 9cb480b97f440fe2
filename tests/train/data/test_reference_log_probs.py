"""What a reference model says of rows: kept by blocks, read with the rows, never of another."""

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
from train.data.shard_writer import shard_name, write_manifest, write_records, write_rows

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


def writer_of(data, *, model=MODEL, block_rows=3, values=VALUES):
    arrays = {"reference_log_probs": values[0]}
    return ReferenceLogProbsWriter(data, model_sha256=model, arrays=arrays, block_rows=block_rows)


def of_block(block, values=VALUES):
    return {"reference_log_probs": values[block.first : block.stop]}


def write_all(data, *, model=MODEL, values=VALUES, block_rows=3):
    writer = writer_of(data, model=model, block_rows=block_rows, values=values)
    for block in writer.missing():
        writer.write(block, of_block(block, values))
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
    for model, first in ((OTHER, -7), (MODEL, -8)):
        arrays = PackedRows(pairs, reference_sha256=model)[2].arrays()
        assert arrays["reference_log_probs"][0, 0] == first
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
    with pytest.raises(InputError, match="is of other rows .*prepared anew since"):
        PackedRows(other, reference_sha256=MODEL)
    with pytest.raises(InputError, match="is of other rows"):
        writer_of(other)


def test_a_cut_off_or_damaged_file_is_named(pairs):
    write_all(pairs)
    folder = reference_folder(pairs, MODEL)
    content = (folder / "values.bin").read_bytes()
    (folder / "values.bin").write_bytes(content[:-4])
    with pytest.raises(InputError, match=r"values.bin: must have 112 bytes"):
        PackedRows(pairs, reference_sha256=MODEL)
    (folder / "values.bin").write_bytes(content)
    fields = json.loads((folder / "reference.json").read_text())
    for damage in (
        {"surprise": 1},
        {**fields, "arrays": {"reference_log_probs": ["|O", [2]]}},
        {**fields, "arrays": {"reference_log_probs": ["?!", [2]]}},
        {**fields, "arrays": 3},
        {**fields, "num_rows": "7"},
    ):
        (folder / "reference.json").write_text(json.dumps(damage))
        with pytest.raises(InputError, match="reference.json: damaged"):
            PackedRows(pairs, reference_sha256=MODEL)
    (folder / "reference.json").write_text(json.dumps({**fields, "num_rows": 8}))
    with pytest.raises(
        InputError, match="reference.json: has num_rows 8, not 7; remove its folder"
    ):
        PackedRows(pairs, reference_sha256=MODEL)


def test_a_value_that_is_not_finite_is_named_by_its_place(pairs):
    writer = writer_of(pairs)
    block = list(writer.missing())[1]
    values = VALUES.copy()
    values[block.first + 2, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"reference_log_probs \[1, 1\] of row 5 is nan; check"):
        writer.write(block, of_block(block, values))
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        writer.write(block, {"reference_log_probs": VALUES[:2]})
    assert [b.number for b in writer.missing()] == [0, 1, 2]


def test_killed_between_blocks_only_the_missing_ones_are_computed(pairs, tmp_path):
    whole = write_pairs(tmp_path / "whole")
    write_all(whole)
    program = (
        "import os, signal, sys, numpy as np\n"
        "from train.data.reference_log_probs_writer import ReferenceLogProbsWriter\n"
        "data, model, kept = sys.argv[1:]\n"
        "values = -np.arange(28, dtype=np.float32).reshape(7, 2, 2)\n"
        "arrays = {'reference_log_probs': values[0]}\n"
        "settings = {'model_sha256': model, 'arrays': arrays, 'block_rows': 3}\n"
        "writer = ReferenceLogProbsWriter(data, **settings)\n"
        "for count, block in enumerate(writer.missing()):\n"
        "    if count == int(kept):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    of_block = {'reference_log_probs': values[block.first : block.stop]}\n"
        "    writer.write(block, of_block)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(pairs), MODEL, "2"])
    assert run.returncode == -9
    with pytest.raises(InputError, match="no reference log-probabilities"):
        PackedRows(pairs, reference_sha256=MODEL)
    with pytest.raises(InputError, match="begun with other block_rows and is not finished"):
        writer_of(pairs, block_rows=2)
    writer = writer_of(pairs)
    assert [block.number for block in writer.missing()] == [2] and not writer.is_finished
    (last,) = writer.missing()
    writer.write(last, of_block(last))
    writer.publish()
    assert files_of(reference_folder(pairs, MODEL)) == files_of(reference_folder(whole, MODEL))


def test_finished_work_is_not_done_again(pairs):
    write_all(pairs)
    again = writer_of(pairs, block_rows=5)
    assert again.is_finished and not list(again.missing())
    again.publish()
    description = json.loads((reference_folder(pairs, MODEL) / "reference.json").read_text())
    assert description["model_sha256"] == MODEL and description["num_rows"] == NUM_ROWS
    with pytest.raises(InputError, match="block_rows must be at least 1"):
        writer_of(pairs, block_rows=0)


def test_a_teacher_s_words_of_every_token_stand_beside_dialogs_and_text(tmp_path):
    """Two arrays, of two dtypes; a corpus has hashes of its shards too."""
    dialogs = write_pairs(tmp_path / "dialogs", kind="dialogs", slots=0)
    text = tmp_path / "text"
    documents = [np.arange(30) + 1]
    write_rows(text, documents, row_length=8, vocab_size=100, tokenizer_sha256="d" * 64)
    rng = np.random.default_rng(0)
    for data in (dialogs, text):
        num_rows = len(PackedRows(data))
        words = rng.integers(0, 100, (num_rows, 8, 2), np.int32)
        log_probs = rng.standard_normal((num_rows, 8, 3), np.float32)
        stored = {"teacher_tokens": words, "teacher_log_probs": log_probs}
        arrays = {name: values[0] for name, values in stored.items()}
        writer = ReferenceLogProbsWriter(data, model_sha256=MODEL, arrays=arrays, block_rows=2)
        for block in writer.missing():
            writer.write(block, {n: v[block.first : block.stop] for n, v in stored.items()})
        writer.publish()
        rows = PackedRows(data, reference_sha256=MODEL)
        for index in range(num_rows):
            found = rows[index].arrays()
            assert found.keys() > stored.keys() and "loss_mask" in found
            for name, values in stored.items():
                np.testing.assert_array_equal(found[name], values[index])
                assert found[name].dtype == values.dtype
        assert rows[0].tokens.shape == (9,)


def test_a_corpus_that_an_earlier_release_prepared_has_no_hashes(tmp_path):
    text = tmp_path / "text"
    documents = [np.arange(30) + 1]
    write_rows(text, documents, row_length=8, vocab_size=100, tokenizer_sha256="d" * 64)
    fields = json.loads((text / "manifest.json").read_text())
    del fields["shards"][0]["sha256"]
    (text / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="text: its manifest has no hashes of the shards; prepare"):
        writer_of(text)
