"""The files of a job: another one is refused, and every moment of the end can be resumed from."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from infer.batch.job import Job
from infer.batch.manifest import Manifest, read_manifest, write_manifest
from infer.batch.merge import merge_parts
from infer.batch.part_file import FinishedRow, PartWriter
from llama_jax.errors import InputError

WANTED = Manifest(
    input_sha256="ab" * 32,
    input_bytes=1000,
    rows=4,
    model="tiny",
    fingerprint="cd" * 32,
    options={"seed": 0, "rows": None},
    version="0.1.0",
    created=123,
)
TEXTS = {row: json.dumps({"text": f"answer {row}"}).encode() for row in range(4)}


def keep(job, *rows):
    writer = PartWriter(job.parts)
    writer.append([FinishedRow(r, "error" if r == 2 else "output", TEXTS[r], r, 1) for r in rows])
    writer.close()


def take_all(job):
    while (taken := job.claims.take()) is not None:
        job.claims.finish(taken[0])


def finished_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path / "OUT.jsonl")
    job.open(WANTED)
    yield job
    job.close()


def test_a_job_from_its_start_to_its_end(job, tmp_path):
    assert read_manifest(job.manifest_path) == WANTED
    take_all(job)
    keep(job, 3, 0)
    keep(job, 2, 1, 0)
    assert job.finish(np.arange(4))
    assert job.output.read_bytes() == b"".join(TEXTS[row] + b"\n" for row in (0, 1, 3))
    assert job.errors.read_bytes() == TEXTS[2] + b"\n"
    assert job.manifest.finished == {
        "rows": 4, "failed": 1, "prompt_tokens": 6, "new_tokens": 4
    }  # fmt: skip
    assert sorted(finished_files(tmp_path)) == [
        "OUT.jsonl", "OUT.jsonl.errors.jsonl", "OUT.jsonl.manifest.json"
    ]  # fmt: skip
    again = Job(job.output)
    later = dataclasses.replace(WANTED, created=999)
    assert again.open(later).created == 123
    assert again.manifest.finished["failed"] == 1 and again.claims is None


def test_without_failures_there_is_no_file_of_errors(tmp_path):
    job = Job(tmp_path / "OUT.jsonl")
    job.open(dataclasses.replace(WANTED, rows=1))
    take_all(job)
    keep(job, 0)
    assert job.finish(np.arange(1))
    assert not job.errors.exists()
    job.close()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_sha256": "ef" * 32}, "input had 1,000 bytes and SHA-256 abababababab, this one"),
        ({"fingerprint": "ef" * 32}, "its model was tiny with other files"),
        ({"options": {"seed": 1, "rows": None}}, "it has --seed 0, not 1"),
        ({"options": {"seed": 0, "rows": 8}}, "it has --rows by default, not 8"),
        ({"version": "9"}, "it is of llama-jax 0.1.0, this is 9"),
    ],
    ids=["input", "model", "option", "option by default", "version"],
)
def test_another_job_is_refused_by_what_differs(job, changes, message):
    job.claims.close()
    other = Job(job.output)
    with pytest.raises(InputError, match=message) as caught:
        other.open(dataclasses.replace(WANTED, **changes))
    assert "\n" not in str(caught.value)
    other.close()
    job.open(WANTED)


def test_a_changed_model_name_is_the_same_job(job):
    job.claims.close()
    job.open(dataclasses.replace(WANTED, model="moved/tiny"))


def test_rows_that_turn_out_to_be_missing_are_answered_again(job):
    order = np.array([3, 2, 1, 0])
    take_all(job)
    keep(job, 0, 1, 3)
    assert not job.finish(order)
    assert not job.output.exists()
    assert job.claims.take() == (1, True)  # the place of row 2 in the order
    keep(job, 2)
    job.claims.finish(1)
    assert job.finish(order)


# What the end of a job does, in its order: it may be killed before any of them.
STEPS = ("errors", "output", "manifest", "parts")


@pytest.mark.parametrize("step", STEPS)
def test_an_end_that_is_interrupted_is_finished_by_the_next_start(job, tmp_path, monkeypatch, step):
    take_all(job)
    keep(job, 0, 1, 2, 3)
    goal = {"errors": job.errors, "output": job.output, "manifest": job.manifest_path}
    replace, rmtree = os.replace, shutil.rmtree

    def replace_unless_killed(source, target):
        if target == goal.get(step):
            raise KeyboardInterrupt
        replace(source, target)

    def remove_unless_killed(path, **options):
        if step == "parts":
            raise KeyboardInterrupt
        rmtree(path, **options)

    monkeypatch.setattr(os, "replace", replace_unless_killed)
    monkeypatch.setattr(shutil, "rmtree", remove_unless_killed)
    with pytest.raises(KeyboardInterrupt):
        job.finish(np.arange(4))
    monkeypatch.undo()
    assert job.output.exists() == (step in ("manifest", "parts"))
    job.close()
    again = Job(job.output)
    again.open(WANTED)
    if step == "parts":
        assert again.manifest.finished
    else:
        assert again.claims.take() is None
        assert again.finish(np.arange(4))
    again.close()
    files = finished_files(tmp_path)
    assert sorted(files) == [
        "OUT.jsonl", "OUT.jsonl.errors.jsonl", "OUT.jsonl.manifest.json"
    ]  # fmt: skip
    assert files["OUT.jsonl"] == b"".join(TEXTS[row] + b"\n" for row in (0, 1, 3))


def test_a_second_process_finds_the_job_ended_by_the_first(job):
    other = Job(job.output)
    other.open(WANTED)
    take_all(job)
    keep(job, 0, 1, 2, 3)
    assert job.finish(np.arange(4))
    assert other.is_finished()
    assert other.finish(np.arange(4))
    other.close()


def test_files_of_no_job_are_not_written_over(tmp_path):
    for name in ("OUT.jsonl", "OUT.jsonl.errors.jsonl"):
        path = tmp_path / name
        path.write_text("precious")
        job = Job(tmp_path / "OUT.jsonl")
        with pytest.raises(InputError, match=f"{name}: exists and is of no job"):
            job.open(WANTED)
        job.close()
        assert path.read_text() == "precious"
        path.unlink()


def test_rows_without_their_manifest_are_refused(job):
    keep(job, 0)
    job.manifest_path.unlink()
    other = Job(job.output)
    with pytest.raises(InputError, match="holds rows of a job whose manifest is gone"):
        other.open(WANTED)
    other.close()


def test_a_finished_job_whose_output_is_gone_is_not_called_finished(job):
    take_all(job)
    keep(job, 0, 1, 2, 3)
    job.finish(np.arange(4))
    job.output.unlink()
    with pytest.raises(InputError, match="its output is gone; remove .*manifest.json"):
        Job(job.output).open(WANTED)


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"format": 2}'], ids=["torn", "empty", "other"])
def test_a_damaged_manifest_is_named(job, content):
    job.manifest_path.write_bytes(content)
    other = Job(job.output)
    with pytest.raises(InputError, match="OUT.jsonl.manifest.json: "):
        other.open(WANTED)


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    write_manifest(path, WANTED)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_manifest(path, dataclasses.replace(WANTED, rows=5))
    monkeypatch.undo()
    assert read_manifest(path) == WANTED
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_more_parts_than_files_may_be_open_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr("infer.batch.merge._MOST_OPEN", 3)
    for row in (*range(40), *range(40)):
        writer = PartWriter(tmp_path)
        writer.append([FinishedRow(row, "output", b"%d" % row)])
        writer.close()
    output = tmp_path / "out"
    merge_parts(tmp_path, 40, output, tmp_path / "errors")
    assert output.read_text().split() == [str(row) for row in range(40)]


@pytest.mark.parametrize(
    "output, errors, message",
    [
        ("nowhere/OUT", None, "its folder does not exist"),
        (".", None, "is a folder"),
        ("in.jsonl", None, "is the input"),
        ("OUT", "in.jsonl", "is the input"),
        ("OUT", "OUT", "--output-errors: is the output itself"),
    ],
)
def test_bad_paths_are_refused(tmp_path, output, errors, message):
    source = tmp_path / "in.jsonl"
    source.write_text("{}")
    job = Job(tmp_path / output, errors and tmp_path / errors)
    with pytest.raises(InputError, match=message):
        job.check_paths(source)
    with pytest.raises(InputError, match="there is no such file"):
        Job(tmp_path / "OUT").check_paths(tmp_path / "missing.jsonl")
