"""Jobs that are killed, again and again, alone and several at once: the same bytes come out."""

import json
import random
import signal
import time

import pytest

from infer.batch.job import Job

from .scripted_job import Nursery, run_scripted

NUM_ROWS = 200


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Rows of all kinds; some of them fail."""
    chance = random.Random(0)
    path = tmp_path_factory.mktemp("job") / "in.jsonl"
    with open(path, "w") as file:
        for number in range(NUM_ROWS):
            row = {"prompt": str(chance.randint(1, 12)), "max_tokens": chance.randint(1, 40)}
            if number % 29 == 0:
                row["prompt"] = "101"
            if number % 3 == 0:
                url = "/v1/completions"
                row = {"custom_id": f"row {number}", "method": "POST", "url": url, "body": row}
            file.write(json.dumps(row) + "\n" if number % 37 else "{broken\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    job, run = run_scripted(source, tmp_path_factory.mktemp("whole") / "OUT.jsonl")
    assert run.exit_code is None and run.work.rows == NUM_ROWS and 10 < run.work.failed < 40
    return job


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("said"))
    yield nursery
    nursery.close()


def kept_lines(output):
    return sum(path.read_bytes().count(b"\n") for path in Job(output).parts.glob("*.jsonl"))


def wait_for(moment):
    deadline = time.monotonic() + 60
    while not moment():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def assert_same(output, undisturbed):
    job = Job(output)
    assert job.output.read_bytes() == undisturbed.output.read_bytes()
    assert job.errors.read_bytes() == undisturbed.errors.read_bytes()
    manifest, expected = (json.loads(j.manifest_path.read_text()) for j in (job, undisturbed))
    assert manifest == expected
    assert not job.parts.exists()


def test_a_job_that_is_killed_at_random_moments_loses_and_doubles_nothing(
    source, undisturbed, nursery, tmp_path
):
    output, chance = tmp_path / "OUT.jsonl", random.Random(1)
    for kill in range(20):
        goal = NUM_ROWS * kill // 21
        child = nursery.start(source, output)
        wait_for(lambda goal=goal: kept_lines(output) >= goal)
        time.sleep(chance.uniform(0.0, 0.01))
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not output.exists()
    child = nursery.start(source, output)
    assert 0 < child.share() < NUM_ROWS / 2
    assert "going on: " in child.said.read_text()
    assert_same(output, undisturbed)


def test_torn_lines_are_left_aside_and_said(source, undisturbed, nursery, tmp_path):
    output = tmp_path / "OUT.jsonl"
    child = nursery.start(source, output)
    wait_for(lambda: kept_lines(output) >= 30)
    child.send(signal.SIGKILL)
    child.wait()
    (part,) = Job(output).parts.glob("*.jsonl")
    content = part.read_bytes()
    part.write_bytes(content[: content[:-1].rfind(b"\n") + 40])
    child = nursery.start(source, output)
    assert child.wait() == 0
    assert "its last line is not whole (39 bytes): left aside" in child.said.read_text()
    assert_same(output, undisturbed)


def test_three_processes_share_a_job_while_one_is_killed_and_one_is_stopped(
    source, undisturbed, nursery, tmp_path
):
    output = tmp_path / "OUT.jsonl"
    killed, stopped, lasting = (nursery.start(source, output, 0.003) for _ in range(3))
    wait_for(lambda: kept_lines(output) >= 40)
    killed.send(signal.SIGKILL)
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 143, stopped.said.read_text()
    late = nursery.start(source, output, 0.003)
    assert 0 < lasting.share() < NUM_ROWS
    assert 0 < late.share() < NUM_ROWS
    assert killed.wait() == -signal.SIGKILL
    assert_same(output, undisturbed)


def test_all_processes_of_a_job_end_together(source, undisturbed, nursery, tmp_path):
    """Whoever is done first waits for the others' rows, and one of them merges."""
    output = tmp_path / "OUT.jsonl"
    children = [nursery.start(source, output, 0.003) for _ in range(4)]
    shares = [child.share() for child in children]
    assert sum(shares) == NUM_ROWS and max(shares) < NUM_ROWS
    assert_same(output, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_job_after_the_step_in_hand(
    source, undisturbed, nursery, tmp_path, number
):
    output = tmp_path / "OUT.jsonl"
    child = nursery.start(source, output, 0.003)
    wait_for(lambda: kept_lines(output) >= 30)
    child.send(number)
    assert child.wait() == 128 + number
    assert "Traceback" not in child.said.read_text()
    assert not output.exists()
    assert nursery.start(source, output).share() > 0
    assert_same(output, undisturbed)
