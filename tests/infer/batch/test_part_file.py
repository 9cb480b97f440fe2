"""What a process keeps: whole lines survive whatever happens to the end of the file."""

import json
import os

import pytest

from infer.batch.kept_rows import KeptRows
from infer.batch.part_file import FinishedRow, PartWriter, json_text, read_part
from llama_jax.errors import InputError

ROWS = [
    FinishedRow(3, "output", json_text({"text": 'ä "}\\n'}), 5, 7),
    FinishedRow(0, "error", json_text({"error": None})),
    FinishedRow(2, "output", json_text({"text": "\ud800"}), 1, 0),
]


@pytest.fixture
def part(tmp_path):
    writer = PartWriter(tmp_path)
    assert not list(tmp_path.iterdir())
    writer.append(ROWS[:1])
    writer.append([])
    writer.append(ROWS[1:])
    writer.close()
    return writer.path


def kept_in(path):
    content = path.read_bytes()
    return [
        FinishedRow(
            kept.row, kept.kind, content[kept.offset : kept.offset + kept.length],
            kept.prompt_tokens, kept.new_tokens,
        )
        for kept, _ in read_part(path, num_rows=4)
    ]  # fmt: skip


def test_what_is_kept_is_read_again(part):
    assert kept_in(part) == ROWS
    lines = [json.loads(line) for line in part.read_bytes().splitlines()]
    assert [line.get("output", line.get("error")) for line in lines] == [
        json.loads(row.text) for row in ROWS
    ]


def test_a_file_cut_off_anywhere_has_all_rows_before_the_cut(part, tmp_path):
    content = part.read_bytes()
    ends = [0]
    for row in ROWS:
        ends.append(ends[-1] + len(row.line))
    cut = tmp_path / "cut.jsonl"
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        whole = sum(end <= length for end in ends[1:])
        assert kept_in(cut) == ROWS[:whole]


def test_nothing_counts_from_the_first_damaged_line_on(part):
    content = part.read_bytes()
    damaged = bytearray(content)
    second = range(len(ROWS[0].line), len(ROWS[0].line + ROWS[1].line))
    for place in second:
        damaged[place] ^= 0x41
        part.write_bytes(damaged)
        assert kept_in(part)[:1] == ROWS[:1]
        assert ROWS[1] not in kept_in(part)
        damaged[place] = content[place]


def test_a_file_that_grows_is_read_on_from_where_it_was(part):
    kept = KeptRows(part.parent, 4)
    content = part.read_bytes()
    first = len(ROWS[0].line)
    for length, rows in ((0, []), (first, [3]), (first + 9, [3]), (len(content), [0, 2, 3])):
        part.write_bytes(content[:length])
        kept.look()
        assert kept.is_kept.nonzero()[0].tolist() == rows
        torn = {part: length - first} if length == first + 9 else {}
        assert kept.leftovers() == torn


def test_each_process_has_a_file_of_its_own(tmp_path):
    writers = [PartWriter(tmp_path), PartWriter(tmp_path)]
    for writer, row in zip(writers, ROWS, strict=False):
        writer.append([row])
    assert len(list(tmp_path.iterdir())) == 2
    for writer in writers:
        writer.close()


def test_a_row_of_another_job_is_refused(part):
    with pytest.raises(InputError, match="has row 3 of a job of 3"):
        list(read_part(part, num_rows=3))


def test_rows_are_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    """Written and synced once for all rows of a step."""
    calls = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: calls.append("write") or write(*a))
    monkeypatch.setattr(os, "fsync", lambda *a: calls.append("fsync") or fsync(*a))
    writer = PartWriter(tmp_path)
    writer.append(ROWS)
    assert calls == ["fsync", "write", "fsync"]  # first the folder that has the new name
    writer.append(ROWS)
    assert calls[3:] == ["write", "fsync"]
    writer.close()


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    writer = PartWriter(tmp_path)
    writer.append(ROWS[:1])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.append(ROWS[1:])
    monkeypatch.undo()
    assert caught.value.filename == str(writer.path)
    writer.close()
    assert kept_in(writer.path) == ROWS[:1]
