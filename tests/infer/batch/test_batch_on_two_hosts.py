"""`llama-jax batch` with the real engine in two processes of one mesh, two devices each."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from infer.batch.job import Job
from llama_jax.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

ROOT = Path(__file__).parents[3]
# A page has 16 tokens of 512 bytes, and a quarter of what is free is for pages.
MEBIBYTES, PAGES_OF_THE_LESSER = (64, 4), 1 * 2**20 // (16 * 512)
OPTIONS = ["--rows", "16", "--no-roofline"]


def row(number):
    """Plain and OpenAI's; greedy, drawn and with a grammar; of one chunk and of several. The one
    with the grammar makes the engine go token by token, and takes long enough for a signal."""
    body = {"prompt": "Hi " * (3 * number + 1), "temperature": number % 2}
    body |= {"max_tokens": 5 + number}
    if number == 4:
        return body | {"temperature": -1}
    if number == 7:
        return body | {"guided_regex": "[a-f]{80}", "max_tokens": 80}
    if number % 3:
        return body
    body |= {"n": 2}
    return {"custom_id": f"row {number}", "method": "POST", "url": "/v1/completions", "body": body}


@pytest.fixture(scope="module")
def job(chat_checkpoint, tmp_path_factory):
    """The model, the rows, and their answers by one process that has all four devices."""
    folder = tmp_path_factory.mktemp("job")
    source, alone = folder / "in.jsonl", folder / "alone.jsonl"
    source.write_text("".join(json.dumps(row(number)) + "\n" for number in range(12)))
    with pytest.raises(SystemExit) as stop:
        main(["batch", str(chat_checkpoint), str(source), str(alone), *OPTIONS, "--devices", "4"])
    assert stop.value.code == 1
    return SimpleNamespace(model=chat_checkpoint, source=source, alone=alone, folder=folder)


@pytest.fixture
def start_two(job):
    """Starts both; a process takes the arguments for itself from `own`."""
    processes = []

    def start(output, *, devices=4, own=((), ())):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
        settings = {
            "XLA_FLAGS": flags,
            "PYTHONPATH": str(ROOT),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(job.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for number in range(2):
            command = [Path(__file__).with_name("mesh_command_process.py"), str(MEBIBYTES[number])]
            command += ["batch", job.model, job.source, output, *OPTIONS]
            command += [
                "--devices",
                str(devices),
                "--coordinator",
                f"localhost:{port}",
                "--num-processes",
                "2",
            ]
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command, "--process-id", str(number), *own[number]],
                    env=os.environ | settings, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        return processes[-2:]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ends(processes):
    """Of both: the exit code, and the lines of stdout and stderr."""
    said = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, out.splitlines(), err.splitlines())
        for process, (out, err) in zip(processes, said, strict=True)
    ]


def answers(output):
    """The answers and the failures, with the date of the job's first start taken out."""
    job = Job(output)
    created = json.loads(job.manifest_path.read_text())["created"]
    text = job.output.read_text() + job.errors.read_text()
    return text.replace(f'"created": {created}', '"created": 0')


@pytest.fixture(scope="module")
def finished(job):
    return job.folder / "together.jsonl"


def test_two_processes_answer_as_one_does(job, start_two, finished):
    first, second = ends(start_two(finished))
    assert (first[0], second[0]) == (1, 1), (first, second)
    assert answers(finished) == answers(job.alone)
    assert not Job(finished).parts.exists()
    # Their hosts have not the same memory, and yet they have the same pages.
    for _, out, _ in (first, second):
        assert [line for line in out if "pages" in line] == [f"pages {PAGES_OF_THE_LESSER}"]
    assert second[2] == ["process 1 of 2 (given)"]
    assert any(line.startswith("these 2 processes: 12 rows") for line in first[2])


def test_a_finished_job_ends_both(start_two, finished):
    before = answers(finished)
    first, second = ends(start_two(finished))
    assert (first[0], second[0]) == (1, 1)
    assert "finished before; nothing is left to do" in first[2]
    assert not any("pages" in line for line in first[1] + second[1])
    assert answers(finished) == before


def test_sigterm_to_one_ends_both_and_the_same_command_goes_on(job, start_two, tmp_path):
    output = tmp_path / "out.jsonl"
    processes = start_two(output)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in Job(output).parts.glob("*.jsonl")):
        assert time.monotonic() < deadline
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    first, second = ends(processes)
    assert (first[0], second[0]) == (143, 143), (first, second)
    assert "ended by a signal; every finished row is kept: the same command goes on" in first[2]
    assert not output.exists()
    first, second = ends(start_two(output))
    assert (first[0], second[0]) == (1, 1), (first, second)
    assert any(line.startswith("going on: ") for line in first[2])
    assert answers(output) == answers(job.alone)


@pytest.mark.parametrize(
    "devices, own, messages",
    [
        (2, ((), ()), ["have 4 devices, and each holds a part of the model"] * 2),
        (
            4,
            ((), ("--seed", "1")),
            ["process 1 cannot begin: process 0 was started", "it has --seed 0, not 1"],
        ),
    ],
    ids=["devices are left out", "another job"],
)
def test_what_cannot_go_well_ends_both_in_a_line(start_two, tmp_path, devices, own, messages):
    both = ends(start_two(tmp_path / "out.jsonl", devices=devices, own=own))
    for (code, _, err), message in zip(both, messages, strict=True):
        assert code == 2 and message in err[-1] and "Traceback" not in "".join(err)
    assert not any(tmp_path.iterdir())


def test_a_disk_that_fails_the_first_ends_the_other_too(start_two, tmp_path):
    output = tmp_path / "out.jsonl"
    processes = start_two(output)
    deadline = time.monotonic() + 120
    while not Job(output).manifest_path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (10, 10))  # bytes of a file
    first, second = ends(processes)
    assert first[0] == 2 and first[2][-1].endswith("File too large"), first
    assert second[0] not in (0, None)
    assert not output.exists()
