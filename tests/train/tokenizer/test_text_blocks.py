"""Text in blocks: the same text, whatever its lines are, and damage by place."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.data.corpus_files import find_files
from train.tokenizer import text_blocks as module
from train.tokenizer.text_blocks import text_blocks


def read(path):
    (file,) = find_files([str(path)])
    return list(text_blocks(file, text_field="text"))


def joined(records):
    return "".join(record.text for record in records if record.text is not None)


LINES = st.lists(st.text("aé ท\U0001f389\n", max_size=40), max_size=30).map("".join)


@settings(max_examples=60)
@given(text=LINES, block=st.integers(1, 9), longest=st.integers(9, 40))
def test_nothing_is_lost(tmp_path_factory, text, block, longest):
    path = tmp_path_factory.mktemp("blocks") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        patch.setattr(module, "_MAX_LINE_BYTES", longest)
        records = read(path)
    assert joined(records) == text
    assert not any(record.complaint for record in records)
    assert sum(record.num_bytes for record in records) == len(text.encode())
    assert all(len(record.text.encode()) <= longest + 2 * block for record in records)


def test_a_gigantic_line_comes_in_parts(tmp_path):
    (tmp_path / "a.txt").write_text("ท" * 4_000_000)
    records = read(tmp_path / "a.txt")
    assert joined(records) == "ท" * 4_000_000
    assert len(records) == 3


def test_a_damaged_line_is_named_by_its_byte_and_the_others_are_read(tmp_path):
    content = b"\xef\xbb\xbfgood\n" + b"bad \xff here\n" + b"good again"
    (tmp_path / "a.txt").write_bytes(content)
    records = read(tmp_path / "a.txt")
    assert joined(records) == "good\ngood again"
    (complaint,) = [record.complaint for record in records if record.text is None]
    assert complaint == f"{tmp_path}/a.txt: byte 12: not UTF-8 text (invalid start byte)"
    assert content[12] == 0xFF


def test_compressed_and_empty_files(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text\n" * 9))
    assert joined(read(tmp_path / "a.txt.gz")) == "text\n" * 9
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"text\n" * 9)[:-3])
    with pytest.raises(InputError, match="b.txt.gz: damaged or cut off"):
        read(tmp_path / "b.txt.gz")
    (tmp_path / "c.txt").write_bytes(b"")
    assert read(tmp_path / "c.txt") == []


def test_documents_of_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": 2}\n')
    first, second = read(tmp_path / "a.jsonl")
    assert first.text == "one"
    assert second.complaint.startswith(f"{tmp_path}/a.jsonl: line 2")
