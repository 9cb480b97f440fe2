"""`llama-jax ask` against a server that answers, refuses, is busy, breaks and is away."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from infer.batch.job import Job
from infer.batch.row_request import row_seed
from infer.remote import remote_client
from llama_jax.__main__ import main
from llama_jax.batch_files.answer_row import read_answers
from llama_jax.batch_files.job_origin import read_origin
from tests.infer.remote.fake_teacher import FakeTeacher


@pytest.fixture
def teacher():
    teacher = FakeTeacher()
    yield teacher
    teacher.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote_client.RemoteClient.__init__, "__defaults__", (0.01,))
    monkeypatch.delenv("LLAMA_JAX_API_KEY", raising=False)


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain(custom_id, text, **fields):
    return {"custom_id": custom_id, "messages": [{"role": "user", "content": text}], **fields}


def run(url, source, *options, output="out.jsonl"):
    with pytest.raises(SystemExit) as stop:
        main(
            ["ask", url, str(source), str(source.with_name(output)), "--model", "teacher",
             "--quiet", *options]
        )  # fmt: skip
    return stop.value.code


def test_rows_of_all_kinds_are_answered_and_the_others_say_why(teacher, tmp_path, capsys):
    body = {"messages": [{"role": "user", "content": "hello"}], "model": "teacher", "n": 2}
    rows = [
        plain("a", "hi", temperature=0.5, metadata={"category": "c"}, n=3),
        {"prompt": "what"},
        {"custom_id": "o", "method": "POST", "url": "/v1/chat/completions", "body": body},
        plain("busy", "busy x"), plain("dated", "dated x"), plain("cut", "cut x"),
        plain("garbled", "garbled x"),
        plain("down", "down x"), plain("bad", "bad x"), plain("few", "few x", n=2),
        plain("other", "x", model="gpt"), plain("n", "x", n=0), plain("s", "x", stream=True),
        "{", plain("a", "again"),
    ]  # fmt: skip
    source = write(tmp_path / "in.jsonl", rows)
    assert run(teacher.url, source, "--seed", "3", "--tries", "3") == 1
    answers = {row.custom_id: row for row in read_answers(tmp_path / "out.jsonl")}
    assert list(answers) == ["a", "line-2", "o", "busy", "dated", "cut", "garbled"]
    assert [sample.text for sample in answers["a"].samples] == ["hi! 0", "hi! 1", "hi! 2"]
    assert answers["o"].model == "teacher-v2" and len(answers["o"].samples) == 2
    assert answers["line-2"].samples[0].text == "what! 0"
    failed = {row["custom_id"]: row["error"]["message"] for row in read(
        tmp_path / "out.jsonl.errors.jsonl"
    ) if row["line"] != 15}  # fmt: skip
    for name, words in {
        "down": "status 500: out of memory", "bad": "status 400: messages: too long",
        "few": "2 answers were asked for and 1 came", "other": "'gpt' is not asked here",
        "n": "n: must be", "s": "stream: ", "line-14": "not valid JSON",
    }.items():  # fmt: skip
        assert words in failed[name], failed
    # What was asked, and how often: a full queue takes no tries.
    assert teacher.asked == {
        "hi": 1, "what": 1, "hello": 1, "busy x": 6, "dated x": 2, "cut x": 2, "garbled x": 2,
        "down x": 3, "bad x": 1, "few x": 1,
    }  # fmt: skip
    waits = teacher.times["busy x"]
    assert min(late - early for early, late in zip(waits, waits[1:], strict=False)) >= 0.1
    sent = {one["messages"][0]["content"]: one for one in teacher.requests}
    assert sent["hi"] == {
        "messages": rows[0]["messages"], "temperature": 0.5, "n": 3, "model": "teacher",
        "max_tokens": 128, "seed": row_seed(3, "a"),
    }  # fmt: skip
    assert "max_tokens" not in sent["hello"] and sent["hello"]["seed"] == row_seed(3, "o")
    assert teacher.paths == {"/v1/chat/completions"} and teacher.keys == {None}
    err = capsys.readouterr().err
    assert "7 of 15 rows answered, 8 failed" in err and "(the first; all go to" in err


def test_the_manifest_says_who_answered(teacher, tmp_path):
    source = write(tmp_path / "in.jsonl", [plain("a", "hi")])
    assert run(teacher.url, source) == 0
    origin = read_origin(tmp_path / "out.jsonl")
    assert origin.model == "teacher" and origin.model_sha256 is None
    assert origin.options["url"] == teacher.url and "seed" not in teacher.requests[0]
    origin.check_input(source, tmp_path / "out.jsonl")


def test_raw_prompts_are_completions_and_a_key_is_sent(teacher, tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", [{"prompt": "once"}])
    key = tmp_path / "key"
    key.write_text("secret-1\n")
    assert run(teacher.url + "/", source, "--format", "raw", "--api-key-file", str(key)) == 0
    assert teacher.paths == {"/v1/completions"} and teacher.keys == {"Bearer secret-1"}
    assert read(tmp_path / "out.jsonl")[0] == {
        "custom_id": "line-1", "text": "once! 0", "finish_reason": "stop",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    }  # fmt: skip
    assert "secret-1" not in (tmp_path / "out.jsonl.manifest.json").read_text()
    monkeypatch.setenv("LLAMA_JAX_API_KEY", "secret-2")
    assert run(teacher.url, source, "--format", "raw", output="again.jsonl") == 0
    assert "Bearer secret-2" in teacher.keys


def test_no_more_requests_are_under_way_than_allowed(teacher, tmp_path):
    source = write(tmp_path / "in.jsonl", [plain(f"r{i}", f"slow {i}") for i in range(40)])
    assert run(teacher.url, source, "--concurrency", "4") == 0
    assert teacher.most == 4 and teacher.asked.total() == 40
    ids = [row["custom_id"] for row in read(tmp_path / "out.jsonl")]
    assert ids == [f"r{i}" for i in range(40)]


def test_a_server_that_is_away_or_closed_ends_the_job_and_it_goes_on(teacher, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [plain("a", "hi, all of you"), plain("b", "locked")])
    assert run("http://127.0.0.1:9/v1", source, "--tries", "2") == 2
    assert "http://127.0.0.1:9/v1: does not answer" in capsys.readouterr().err
    # That start came to nothing, and binds nobody to its URL.
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert run(teacher.url, source, "--concurrency", "1", output="b.jsonl") == 2
    assert "status 401: no key" in capsys.readouterr().err
    # Where something was answered another URL is another job.
    assert run("http://127.0.0.1:9/v1", source, output="b.jsonl") == 2
    err = capsys.readouterr().err
    assert "not http://127.0.0.1:9/v1; start with the same, or give another OUTPUT" in err
    kept = Job(tmp_path / "b.jsonl").parts.glob("*.jsonl")
    assert sum(path.read_bytes().count(b"\n") for path in kept) == 1
    assert not (tmp_path / "b.jsonl").exists()
    teacher.answer = lambda body: (200, {}, json.loads(json.dumps(RESPONSE)))
    assert run(teacher.url, source, output="b.jsonl") == 0
    assert [row["text"] for row in read(tmp_path / "b.jsonl")] == ["hi, all of you! 0", "fine"]
    assert teacher.asked["hi, all of you"] == 1


RESPONSE = {
    "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": "many"},
}


@pytest.mark.parametrize(
    "body, message",
    [
        ({}, "choices: must be a list"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "has no text"),
        ({"choices": [{"message": {"content": "x"}}]}, "finish_reason: must be text"),
        ({"choices": [{"message": "x", "finish_reason": "stop"}]}, "message: must be an object"),
        ([], "must be a JSON object"),
    ],
)
def test_responses_that_are_none_fail_their_row(teacher, tmp_path, body, message):
    teacher.answer = lambda asked: (200, {}, body)
    source = write(tmp_path / "in.jsonl", [plain("a", "hi")])
    assert run(teacher.url, source, "--tries", "2") == 1
    (failed,) = read(tmp_path / "out.jsonl.errors.jsonl")
    assert message in failed["error"]["message"]
    assert read(tmp_path / "out.jsonl") == []


def test_a_queue_that_stays_full_fails_the_row_in_the_end(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_client, "LONGEST_QUEUE", 0.05)
    teacher.answer = lambda asked: (429, {"Retry-After": "0.01"}, {"error": {"message": "full"}})
    source = write(tmp_path / "in.jsonl", [plain("a", "hi")])
    assert run(teacher.url, source, "--tries", "2") == 1
    (failed,) = read(tmp_path / "out.jsonl.errors.jsonl")
    assert "status 429: full" in failed["error"]["message"]


@pytest.mark.parametrize(
    "status, fields",
    [
        (302, {}),
        (402, {}),
        (404, {"code": "model_not_found"}),
        (429, {"code": "insufficient_quota"}),
        (429, {"type": "insufficient_quota", "code": 7}),
    ],
)
def test_what_no_row_can_be_asked_for_ends_the_job_and_leaves_nothing(
    teacher, tmp_path, capsys, status, fields
):
    asked = []

    def answer(body):
        asked.append(body)
        return status, {}, {"error": {"message": "elsewhere", **fields}}

    teacher.answer = answer
    # A row that nobody can answer was refused before.
    source = write(tmp_path / "in.jsonl", ["{", plain("a", "hi")])
    assert run(teacher.url, source) == 2
    assert f"status {status}: elsewhere" in capsys.readouterr().err and len(asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    teacher.answer = lambda asked: (200, {}, RESPONSE)
    write(source, [plain("a", "hi")])
    assert run(teacher.url, source) == 0


def test_a_start_that_fails_leaves_a_job_alone_that_another_process_works_on(teacher, tmp_path):
    count = 20
    source = write(tmp_path / "in.jsonl", [plain(f"r{i}", f"slow {i}") for i in range(count)])
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "llama_jax", "ask", teacher.url, str(source), str(output),
               "--model", "teacher", "--concurrency", "1", "--quiet"]  # fmt: skip
    is_open = threading.Event()
    answers = teacher.answer
    teacher.answer = lambda body: is_open.wait(60) and answers(body)
    process = subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    while not teacher.paths:
        time.sleep(0.01)
    teacher.answer = lambda body: (401, {}, {})
    assert run(teacher.url, source) == 2
    assert Job(output).manifest_path.exists()
    teacher.answer = answers
    is_open.set()
    assert process.wait(timeout=60) == 0 and len(read(output)) == count


def test_rows_that_a_server_refuses_keep_its_status_code_and_words(teacher, tmp_path):
    said = {"message": "too long: " + "x" * 400, "code": "context_length_exceeded",
            "param": "messages", "type": "invalid_request_error"}  # fmt: skip
    teacher.answer = lambda asked: (422, {}, {"error": said})
    body = {"messages": [{"role": "user", "content": "hi"}]}
    openai = {"custom_id": "o", "method": "POST", "url": "/v1/chat/completions", "body": body}
    rows = [plain("a", "hi"), plain("b", "hi", model="gpt"), openai]
    assert run(teacher.url, write(tmp_path / "in.jsonl", rows)) == 1
    own, other, openai = read(tmp_path / "out.jsonl.errors.jsonl")
    message = own["error"].pop("message")
    assert own["error"] == {"status_code": 422, "code": "context_length_exceeded"}
    assert message.endswith(said["message"])
    assert (other["error"]["status_code"], other["error"]["code"]) == (404, "model_not_found")
    assert openai["response"]["status_code"] == 422
    assert openai["response"]["body"]["error"] == {**said, "message": message}
    assert openai["error"] == {"code": "context_length_exceeded", "message": message}


def test_a_response_that_cannot_be_unpacked_fails_its_row(teacher, tmp_path):
    teacher.answer = lambda asked: (200, {"Content-Encoding": "gzip"}, RESPONSE)
    source = write(tmp_path / "in.jsonl", [plain("a", "hi")])
    assert run(teacher.url, source, "--tries", "2") == 1
    (failed,) = read(tmp_path / "out.jsonl.errors.jsonl")
    assert "Error -3 while decompressing" in failed["error"]["message"]


@pytest.mark.parametrize(
    "url, options, message",
    [
        ("ftp://x/v1", [], "URL must be that of an API"),
        ("x/v1", [], "URL must be that of an API"),
        ("http://x:99999/v1", [], "Port out of range"),
        ("http://x:y/v1", [], "Port could not be cast"),
        ("http://[::1/v1", [], "Invalid IPv6 URL"),
        ("http://me:pw@x/v1", [], "URL holds a password"),
        ("http://x/v1", ["--concurrency", "0"], "--concurrency must be at least 1"),
        ("http://x/v1", ["--tries", "0"], "--tries must be at least 1"),
        ("http://x/v1", ["--seed", "-1"], "--seed must be from 0"),
        ("http://x/v1", ["--request-timeout", "nan"], "--request-timeout must be above 0"),
        ("http://x/v1", ["--max-new-tokens", "0"], "--max-new-tokens must be at least 1"),
        ("http://x/v1", ["--api-key-file", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, capsys, url, options, message):
    source = write(tmp_path / "in.jsonl", [plain("a", "hi")])
    assert run(url, source, *options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_killed_it_goes_on_and_asks_nothing_twice(teacher, tmp_path):
    count = 60
    source = write(tmp_path / "in.jsonl", [plain(f"r{i}", f"slow {i}") for i in range(count)])
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "llama_jax", "ask", teacher.url, str(source), str(output),
               "--model", "teacher", "--concurrency", "2", "--quiet"]  # fmt: skip
    ends = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = teacher.asked.total()
        process = subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"})
        deadline = time.monotonic() + 60
        while teacher.asked.total() < before + 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        ends.append(process.wait(timeout=60))
    assert ends == [-signal.SIGKILL, 128 + signal.SIGTERM] and not output.exists()
    time.sleep(0.1)  # what the killed process had asked is answered into the void
    assert run(teacher.url, source, "--concurrency", "2") == 0
    assert [row["text"] for row in read(output)] == [f"slow {i}! 0" for i in range(count)]
    # SIGTERM waits for what is under way; SIGKILL loses that, which is two rows at most.
    assert teacher.asked.total() <= count + 2
