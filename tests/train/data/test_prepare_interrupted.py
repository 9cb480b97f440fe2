"""Preparing that is killed or runs out of disk: what is finished is kept, the rest never shows."""

import signal
import subprocess
import time

import numpy as np
import pytest

from train.data import prepare as prepare_module
from train.data import work_units
from train.data.prepare import prepare

from .corpus import TEXTS, command, documents_of, files_of, jsonl


@pytest.fixture
def long_corpus(tmp_path):
    """About 60 units of 2,000 bytes."""
    rng = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(600)]
    path = tmp_path / "long.jsonl"
    path.write_bytes(jsonl(texts))
    return path


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    long_corpus, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 2000)
    monkeypatch.setattr(prepare_module, "TOKENS_PER_SHARD", 1000)
    options = {"tokenizer": tokenizer, "row_length": 32, "workers": 1}
    prepare([str(long_corpus)], output=tmp_path / "whole", **options)
    # Without the pauses a unit is done before anyone can kill it.
    slow = "import train.data.unit_files as t; import time; old = t.publish; "
    slow += "t.publish = lambda *paths: (time.sleep(0.02), old(*paths))"
    arguments = (str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32")
    arguments += ("--workers", "1", "--output", str(tmp_path / "data"))
    killed = command(tmp_path, *arguments, before=slow)
    rng = np.random.default_rng(1)
    units = tmp_path / ".data.preparing" / "units"
    for _ in range(3):
        wanted = len(list(units.glob("*.json"))) + 3
        process = subprocess.Popen(killed)
        while len(list(units.glob("*.json"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "data").exists()
    prepare([str(long_corpus)], output=tmp_path / "data", **options)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")
    assert not (tmp_path / ".data.preparing").exists()


def test_workers_end_with_a_killed_main_process(long_corpus, tokenizer, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    slow = command(
        tmp_path,
        *(str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32", "--workers", "2"),
        *("--output", str(tmp_path / "data")),
    )
    # A worker imports the program too, as __mp_main__: there it marks itself and takes its time.
    program = tmp_path / "program.py"
    program.write_text(
        program.read_text()
        + "elif __name__ == '__mp_main__':\n"
        + "    import os, pathlib, time\n"
        + f"    pathlib.Path({str(marks)!r}, str(os.getpid())).touch()\n"
        + "    import train.data.unit_files as t\n"
        + "    old = t.publish\n"
        + "    t.publish = lambda *paths: (time.sleep(0.2), old(*paths))\n"
    )
    process = subprocess.Popen(slow, stderr=subprocess.DEVNULL)
    while not list((tmp_path / ".data.preparing" / "units").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = [int(path.name) for path in marks.iterdir()]
    assert workers and all(map(is_running, workers))
    again = subprocess.run(slow, capture_output=True, text=True)
    assert again.returncode == 2 and "another process is preparing it now" in again.stderr
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their main process"
        time.sleep(0.02)


def is_running(process_id):
    try:
        with open(f"/proc/{process_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_worker_is_one_line_and_the_work_can_go_on(long_corpus, tokenizer, tmp_path):
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "2"]
    program = command(tmp_path, *arguments)
    source = (tmp_path / "program.py").read_text()
    (tmp_path / "program.py").write_text(
        source
        + "elif __name__ == '__mp_main__':\n"
        + "    import os, signal\n"
        + "    import train.data.unit_files as t\n"
        + "    t.publish = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "a worker process was killed" in line and "run the same command again" in line
    (tmp_path / "program.py").write_text(source)
    subprocess.run(program, check=True, capture_output=True)
    assert len(documents_of(tmp_path / "data")) == 600


def test_an_error_in_a_worker_is_one_line(long_corpus, tokenizer, tmp_path):
    with open(long_corpus, "ab") as file:
        file.write(b"damaged\n")
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "2"]
    run = subprocess.run(command(tmp_path, *arguments), capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "long.jsonl: line 601: not valid JSON" in line


@pytest.mark.parametrize("limit", [500, 30_000], ids=["tokenising", "packing"])
def test_a_full_disk_is_one_line_and_the_work_can_go_on(long_corpus, tokenizer, tmp_path, limit):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "1"]
    limits = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, r.RLIM_INFINITY))"
    full = command(tmp_path, *arguments, before=limits)
    run = subprocess.run(full, capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    name = "unit-000000.tokens" if limit == 500 else "rows-000000.arrayrecord"
    assert name in line and "File too large" in line
    assert line.endswith(
        "free space there and run the same command again: it goes on with what is finished"
    )
    assert not (tmp_path / "data").exists()
    subprocess.run(command(tmp_path, *arguments), check=True, capture_output=True)
    assert len(documents_of(tmp_path / "data")) == 600
