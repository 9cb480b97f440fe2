"""The first pass: what it measures, what it finds, and how little it holds."""

import codecs
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from infer.batch.row_table import scan_rows
from infer.batch.schedule import estimated_lengths, schedule
from llama_jax.batch_files.batch_row import MAX_ROW_BYTES, RowError
from llama_jax.errors import InputError

# What the first pass and the schedule may take for each row, whatever the row's length: 52 bytes
# that stay, as much again while pieces are joined, and what is sorted (measured: 164).
BYTES_A_ROW = 250


def scan(path, limit=100):
    return scan_rows(path, default_limit=lambda row: limit)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(table):
    with open(table.path, "rb") as file:
        return [table.read(file, row).custom_id for row in range(len(table))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_rows_are_found_again_where_they_are(tmp_path, end):
    path = tmp_path / "in.jsonl"
    lines = [
        codecs.BOM_UTF8 + b'{"prompt": "a"}',
        b"",
        '{"custom_id": "ü", "prompt": "\u2028\u0085"}'.encode(),
        b" \t ",
        b'{"prompt": "last, without an end"}',
    ]
    path.write_bytes(end.join(lines))
    table = scan(path)
    assert ids(table) == ["line-1", "ü", "line-5"]
    assert table.rows["line"].tolist() == [1, 3, 5]
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.num_bytes == path.stat().st_size
    with open(path, "rb") as file:
        assert table.read(file, 1).body == {"prompt": "\u2028\u0085"}


def test_a_row_is_measured(tmp_path):
    chat = {"messages": [{"role": "user", "content": "xy"}], "max_completion_tokens": 7, "n": 3}
    table = scan(
        write(
            tmp_path / "in.jsonl",
            {"prompt": "ü" * 600, "max_tokens": 5},
            chat,
            {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": chat},
            {"prompt": [1, 2, 3]},
            {"prompt": "a", "max_tokens": 10**40, "n": -5},
            {"prompt": "a", "max_tokens": "many", "n": True},
            {"what": 1},
        )
    )
    assert table.rows["prompt_bytes"].tolist() == [1200, 6, 6, 12, 1, 1, 0]
    assert table.rows["max_new_tokens"].tolist() == [5, 7, 7, 100, 2**31 - 1, 100, 0]
    assert table.rows["samples"].tolist() == [1, 3, 3, 1, 1, 1, 0]
    assert estimated_lengths(table)[:4].tolist() == [305, 22, 22, 103]
    assert table.rows["prefix"][1] == table.rows["prefix"][2]
    assert len(set(table.rows["prefix"].tolist())) == 5


def test_a_name_given_twice_fails_the_second_row_alone(tmp_path):
    names = ["a", "b", "a", "c", "a", "line-6"]
    rows = [{"custom_id": name, "prompt": "x"} for name in names] + [{"prompt": "x"}]
    path = write(tmp_path / "in.jsonl", *rows)
    table = scan(path)
    assert table.rows["same_id_line"].tolist() == [0, 0, 1, 0, 1, 0, 0]
    with open(path, "rb") as file:
        assert table.read(file, 0).custom_id == "a"
        with pytest.raises(RowError, match="custom_id: 'a' is that of line 1") as caught:
            table.read(file, 4)
    assert caught.value.custom_id == "a"


def test_a_line_that_is_too_long_fails_alone(tmp_path):
    path = tmp_path / "in.jsonl"
    short = b'{"prompt": "short"}\n'
    with open(path, "wb") as file:
        file.write(short)
        file.write(b'{"prompt": "' + b"x" * (3 * MAX_ROW_BYTES) + b'"}\n')
        file.write(short)
        room = MAX_ROW_BYTES - len(b'{"prompt": ""}')
        file.write(b'{"prompt": "' + b"y" * room + b'"}\n')
        file.write(b"\n" + short)
    table = scan(path)
    assert table.rows["line"].tolist() == [1, 2, 3, 4, 6]
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with open(path, "rb") as file:
        assert [table.read(file, row).custom_id for row in (0, 2, 4)] == [
            "line-1",
            "line-3",
            "line-6",
        ]
        assert len(table.read(file, 3).body["prompt"]) == room
        with pytest.raises(RowError, match="longer than 16,777,216 bytes"):
            table.read(file, 1)


def test_an_input_that_changes_is_noticed(tmp_path):
    path = write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "b"})
    table = scan(path)
    write(path, {"prompt": "a"}, {"prompt": "c"})
    with open(path, "rb") as file:
        assert table.read(file, 0).body == {"prompt": "a"}
        with pytest.raises(InputError, match="line 2 has changed"):
            table.read(file, 1)


@pytest.mark.parametrize("content", [b"", b"\n \n", codecs.BOM_UTF8], ids=["empty", "blank", "bom"])
def test_an_input_without_rows_is_refused(tmp_path, content):
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="holds no row"):
        scan(path)


def test_the_longest_come_first_and_prompts_that_begin_alike_stay_together(tmp_path):
    def row(name, document, question, max_tokens):
        return {"custom_id": name, "prompt": document * 600 + question, "max_tokens": max_tokens}

    table = scan(
        write(
            tmp_path / "in.jsonl",
            row("short", "s", "?", 10),
            row("A1", "a", "one", 50),
            row("long", "l", "?", 800),
            row("A2", "a", "two", 900),
            row("A3", "a", "three", 10),
            {"custom_id": "bad"},
        )
    )
    order = schedule(table)
    with open(table.path, "rb") as file:
        names = [table.read(file, row).custom_id for row in order[:-1]]
    assert names == ["A2", "A1", "A3", "long", "short"]
    assert order[-1] == 5


def test_the_schedule_has_every_row_once_and_is_always_the_same(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": "xyz"[rng.integers(3)] * int(rng.integers(1, 900)), "max_tokens": int(limit)}
        for limit in rng.integers(1, 50, 3000)
    ]
    table = scan(write(tmp_path / "in.jsonl", *rows))
    order = schedule(table)
    assert sorted(order.tolist()) == list(range(3000))
    assert order.tolist() == schedule(scan(table.path)).tolist()


MEASURE = """
import sys
from pathlib import Path
from infer.batch.row_table import scan_rows
from infer.batch.schedule import schedule

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

small, large = map(Path, sys.argv[1:])
schedule(scan_rows(small, default_limit=lambda row: 100))
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
table = scan_rows(large, default_limit=lambda row: 100)
assert len(schedule(table)) == len(table)
print(len(table), memory("VmHWM") - before)
"""


@pytest.mark.slow
def test_a_large_input_takes_few_bytes_a_row(tmp_path):
    """Rows of 1 KB: a quarter of a gigabyte of text, of which nothing may stay."""
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    num_rows = 250_000
    for path, count in ((small, 1000), (large, num_rows)):
        with open(path, "w") as file:
            for row in range(count):
                text = f"{row} " + "some words " * 90
                file.write(f'{{"custom_id": "row {row}", "prompt": "{text}", "max_tokens": 64}}\n')
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, small, large], capture_output=True, text=True, check=True
    )
    counted, grown = map(int, run.stdout.split())
    assert counted == num_rows
    assert grown < BYTES_A_ROW * num_rows
    print(grown / num_rows, "bytes a row")
