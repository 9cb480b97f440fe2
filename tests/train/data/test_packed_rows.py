"""Reading rows by number, and data that is not what it should be."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from llama_jax.errors import InputError
from train.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from train.data.packed_rows import PackedRows
from train.data.packing import PackedTokens
from train.data.shard_writer import write_rows, write_shard

from .conftest import HASH, VOCAB_SIZE

DOCUMENTS = [np.arange(1, 41), np.arange(100, 145)]
STREAM = np.concatenate(DOCUMENTS)


def test_rows_are_the_stream_whatever_the_shards(write):
    for rows_per_shard in (1, 4, 100):
        rows = PackedRows(
            write(f"data{rows_per_shard}", DOCUMENTS, rows_per_shard=rows_per_shard),
            row_length=8,
            tokenizer_sha256=HASH,
        )
        assert len(rows) == 11 and len(rows.manifest.shards) == -(-11 // rows_per_shard)
        for number in (10, 0, 3, 4, 7):
            expected = STREAM[8 * number : 8 * number + 9]
            np.testing.assert_array_equal(rows[number].tokens[: len(expected)], expected)
        assert list(rows[4].segment_ids) == [1] * 8 + [2]  # the second begins at token 40
        with pytest.raises(IndexError):
            rows[11]


def test_the_manifest_says_what_there_is(write):
    folder = write("data", [*DOCUMENTS, []], bos_id=1, eos_id=2)
    manifest = read_manifest(folder)
    assert manifest.num_tokens == 85 and manifest.num_documents == 2 and manifest.num_empty == 1
    assert manifest.num_rows == 11 and (manifest.bos_id, manifest.eos_id) == (1, 2)
    assert isinstance(manifest, Manifest) and manifest.vocab_size == VOCAB_SIZE


def test_more_shards_than_may_be_open_and_threads_that_read_at_once(write, monkeypatch):
    monkeypatch.setattr("train.data.packed_rows._MAX_OPEN_SHARDS", 2)
    rows = PackedRows(write("data", DOCUMENTS, rows_per_shard=2))
    order = np.random.default_rng(0).integers(0, 10, 400)
    with ThreadPoolExecutor(8) as pool:
        for number, row in zip(order, pool.map(rows.__getitem__, order), strict=True):
            np.testing.assert_array_equal(row.tokens, STREAM[8 * number : 8 * number + 9])


def test_another_row_length_or_tokenizer_is_refused_with_both_and_the_command(write):
    folder = write("data", DOCUMENTS)
    with pytest.raises(InputError, match=r"8 tokens.*row_length 16.*data prepare.*--row-length 16"):
        PackedRows(folder, row_length=16)
    with pytest.raises(InputError, match=r"aaaa.*bbbb.*data prepare"):
        PackedRows(folder, tokenizer_sha256="b" * 64)


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such folder.*llama-jax data prepare"):
        PackedRows(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no prepared data"):
        PackedRows(tmp_path)


def test_a_missing_or_cut_off_shard_is_named(write):
    folder = write("data", DOCUMENTS, rows_per_shard=5)
    shard = folder / "rows-000001.arrayrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:1000])
    with pytest.raises(InputError, match="rows-000001.*has 1000 bytes where the manifest says"):
        PackedRows(folder)
    shard.unlink()
    with pytest.raises(InputError, match="rows-000001.*missing"):
        PackedRows(folder)


@pytest.mark.parametrize("damage", [lambda b: bytes(len(b)), lambda b: bytes(x ^ 255 for x in b)])
def test_a_shard_with_other_content_is_named_with_its_row(write, damage):
    folder = write("data", DOCUMENTS, rows_per_shard=5)
    shard = folder / "rows-000001.arrayrecord"
    shard.write_bytes(damage(shard.read_bytes()))
    rows = PackedRows(folder)
    assert rows[4].tokens[0] == STREAM[32]
    with pytest.raises(InputError, match=r"rows-000001.arrayrecord: row 2 is damaged"):
        rows[7]


def test_a_token_outside_the_vocabulary_is_named_with_shard_and_row(write):
    folder = write("data", [np.arange(9)])
    bad = PackedTokens(np.array([1, VOCAB_SIZE] + [1] * 7), np.array([0]))
    shard = write_shard(folder / "rows-000000.arrayrecord", [bad], vocab_size=VOCAB_SIZE)
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    fields["shards"][0]["num_bytes"] = shard.num_bytes
    (folder / MANIFEST_FILE).write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"rows-000000.arrayrecord: row 0.*token id 1000"):
        PackedRows(folder)[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 2}, "format_version 2"),
        ({"num_rows": 10}, "numbers contradict"),
        ({"shards": []}, "numbers contradict"),
        ({"shards": [{"name": "../x", "num_rows": 11, "num_bytes": 1}]}, "numbers contradict"),
        ({"shards": [{"name": "x"}]}, "damaged"),
        ({"row_length": "8"}, "damaged"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_damaged_manifest_is_refused(write, change, complaint):
    path = write("data", DOCUMENTS) / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=complaint):
        read_manifest(path.parent)


def test_what_cannot_be_written_leaves_nothing(tmp_path, write):
    options = {"row_length": 8, "vocab_size": 10, "tokenizer_sha256": HASH}
    with pytest.raises(InputError, match="document 1: has a token outside the vocabulary of 10"):
        write_rows(tmp_path / "data", [[1] * 50, [10]], **options)
    with pytest.raises(InputError, match="1 tokens, too few"):
        write_rows(tmp_path / "data", [[1]], **options)
    assert not list(tmp_path.iterdir())
    write("data", DOCUMENTS)
    with pytest.raises(InputError, match="exists already"):
        write_rows(tmp_path / "data", DOCUMENTS, **options)
