"""How a request for answers may end, over an engine that follows a script."""

import contextlib
import http.client
import json
import logging
import socket
import threading
import time

import pytest

from infer.server import answer_stream
from infer.server.admission import Admission
from infer.server.http_error import HttpError


def ask(server, max_tokens=3, **fields):
    body = {"model": "tiny", "prompt": "secret words", "max_tokens": max_tokens, **fields}
    return server.request("POST", "/v1/completions", body)


def ask_in_thread(server, *args, **fields):
    """A list that will hold the answer, and the thread that asks for it."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(server, *args, **fields)))
    thread.start()
    return answers, thread


@contextlib.contextmanager
def posted(server, max_tokens, *, stream=True):
    """A connection on which an answer was asked for, and not read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    fields = {"model": "tiny", "prompt": "x", "max_tokens": max_tokens, "stream": stream}
    headers = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", json.dumps(fields), headers)
        yield connection


def events_of(server, max_tokens):
    """The events of a stream, read to the end."""
    with posted(server, max_tokens) as connection:
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, rest = response.read().decode().split("\n\n")
    assert not rest and all(event.startswith("data: ") for event in events)
    return [event.removeprefix("data: ") for event in events]


def outcomes(server):
    lines = server.request("GET", "/metrics")[2].decode().splitlines()
    start = 'llama_jax_requests_total{outcome="'
    found = [line.removeprefix(start) for line in lines if line.startswith(start)]
    return {line.split('"')[0]: float(line.split()[-1]) for line in found}


def test_an_answer_whole_and_in_events(serve_script):
    server = serve_script()
    status, _, body = ask(server, 3)
    assert status == 200 and body["choices"][0]["text"] == "xxx"
    *chunks, end = events_of(server, 3)
    chunks = [json.loads(chunk) for chunk in chunks]
    assert end == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "xxx"
    assert outcomes(server) == {"ok": 2}


def test_a_full_queue_refuses_and_holds_nothing_back(serve_script, wait_until):
    server = serve_script(rows=1, max_queue=1)
    server.answering.may_step.clear()
    running = [ask_in_thread(server) for _ in range(2)]
    # The engine is held up in a step and may not have seen the second; the door has.
    wait_until(lambda: server.listener._work.admission.unfinished == 2)
    status, headers, body = ask(server)
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert body["error"]["code"] == "queue_full" and body["error"]["type"] == "rate_limit_error"
    server.answering.may_step.set()
    for answers, thread in running:
        thread.join()
        assert answers[0][0] == 200
    assert ask(server)[0] == 200
    # Two samples fill it; three could never be held.
    assert ask(server, n=2)[0] == 200
    status, _, body = ask(server, n=3)
    assert status == 400 and "3 answers at once are over what this server holds, 2" in str(body)
    assert outcomes(server) == {"ok": 4, "refused": 1, "invalid": 1}


def test_retry_after_follows_how_long_requests_take():
    admission = Admission(capacity=2, rows=2)
    for _ in range(50):
        admission.enter()
        admission.leave(1, 20.0)
    admission.enter()
    with pytest.raises(HttpError) as caught:
        admission.grow(2)
        admission.enter()
    assert caught.value.headers == {"Retry-After": "10"}


def test_a_full_queue_says_how_many_places_are_needed_and_free():
    admission = Admission(capacity=12, rows=2)
    for _ in range(11):
        admission.enter()
    with pytest.raises(HttpError, match="needs 3 of 12 places, and 2 are free"):
        admission.grow(3)
    admission.enter()
    with pytest.raises(HttpError, match="needs 1 of 12 places, and 0 are free"):
        admission.enter()


def test_time_is_up_for_an_answer(serve_script, wait_until):
    server = serve_script(request_timeout=0.5)
    server.answering.may_step.clear()
    status, headers, body = ask(server)
    assert status == 504 and headers["x-should-retry"] == "false"
    assert "not finished within 0.5 s" in body["error"]["message"]
    server.answering.may_step.set()
    wait_until(lambda: server.answering.is_idle)
    assert outcomes(server) == {"timeout": 1}
    assert ask(server)[0] == 200


def test_time_is_up_in_a_stream(serve_script, wait_until):
    server = serve_script(request_timeout=0.5)
    server.answering.seconds_a_step = 0.01
    first, *_, last = events_of(server, 200)
    assert json.loads(first)["choices"][0]["text"]
    assert json.loads(last)["error"]["code"] == "timeout"  # and no [DONE]
    wait_until(lambda: server.answering.is_idle)


def raw(server, data):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(data)
    return connection


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_time_is_up_for_a_body(serve_script):
    server = serve_script(request_timeout=0.3)
    with raw(server, HEAD + b'Content-Length: 100\r\n\r\n{"model"') as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert outcomes(server) == {"timeout": 1}


def test_a_body_too_large_is_refused_told_or_not(serve_script, wait_until):
    server = serve_script(max_body_bytes=1000)
    body = b'{"model": "tiny", "prompt": "' + b"x" * 100_000 + b'"}'
    told = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    untold = (
        HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n\r\n"
        % (
            len(body),
            body,
        )
    )
    absurd = HEAD + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n"
    for request in (told, untold, absurd):
        with raw(server, request) as connection:
            answer = connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"over 1000 bytes" in answer or b"over 1000 bytes" in connection.recv(10_000)
            if request is not absurd:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.listener._work.admission.unfinished == 0)


@pytest.mark.parametrize(
    "body, message",
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"model": "\xff"}', "not valid JSON"),
        (b'{"model": "tiny", "model": "tiny"}', "a key is given twice"),
        (b"[" * 100_000, "not valid JSON"),
        ("{}".encode("utf-16"), "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"model": "tiny", "prompt": "x", "temperature": -1}', "temperature"),
        (b'{"model": "tiny", "prompt": "x", "n": 1e9}', "n"),
        (b'{"model": "tiny", "prompt": "x", "best_off": 2}', "best_off"),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "prompt"),
    ],
)
def test_bad_bodies_are_told_in_one_line(shared_server, body, message):
    headers = {"Content-Type": "application/json"}
    status, _, answer = shared_server.request("POST", "/v1/completions", body, headers)
    assert status == 400 and message in answer["error"]["message"], answer
    assert "\n" not in answer["error"]["message"]


def test_only_json_is_taken(shared_server):
    for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json5"}):
        status, _, body = shared_server.request("POST", "/v1/completions", b"{}", kind)
        assert status == 415 and "Content-Type: application/json" in body["error"]["message"]


def test_another_model_is_not_found(shared_server):
    status, _, body = ask(shared_server, model="gpt-4")
    assert status == 404 and "tiny" in body["error"]["message"]
    assert body["error"]["code"] == "model_not_found"


def test_what_the_engine_cannot_hold_is_the_clients_to_mend(shared_server):
    shared_server.answering.limit = 5
    try:
        status, _, body = ask(shared_server, 3)
    finally:
        shared_server.answering.limit = 250
    assert status == 400 and "over the scripted context" in body["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_takes_its_answer_along(serve_script, wait_until, stream):
    server = serve_script()
    server.answering.seconds_a_step = 0.01
    with posted(server, 200, stream=stream) as connection:
        wait_until(lambda: server.answering.num_steps > 3)
        if stream:
            response = connection.getresponse()
            assert response.read(10)
            response.close()
        server.answering.may_step.clear()
    wait_until(lambda: outcomes(server) == {"client_gone": 1})
    server.answering.may_step.set()
    wait_until(lambda: server.answering.is_idle)
    assert server.listener._work.admission.unfinished == 0
    assert server.answering.num_steps < 190


def test_a_client_that_does_not_read_is_given_up(serve_script, wait_until, monkeypatch):
    """It holds up neither the engine nor the others, and what waits for it stays small."""
    monkeypatch.setattr(answer_stream, "MAX_BEHIND", 20)
    server = serve_script()
    server.answering.width = 200_000  # the kernel's own buffers hold some megabytes
    with posted(server, 200):
        wait_until(lambda: outcomes(server) == {"client_too_slow": 1})
        server.answering.width = 1
        assert ask(server)[0] == 200
    assert server.answering.is_idle and server.answering.num_steps < 200


def test_an_error_in_one_row_is_of_that_request_alone(serve_script, caplog):
    server = serve_script()
    server.answering.seconds_a_step = 0.02
    other, thread = ask_in_thread(server, 40)
    status, _, body = ask(server, 13)  # the script lets answers of 13 tokens fail at the end
    assert status == 500 and body["error"]["message"] == "scripted failure"
    assert "scripted failure" in events_of(server, 13)[-1]
    thread.join()
    assert other[0][0] == 200 and other[0][2]["choices"][0]["text"] == "x" * 40


def test_a_bug_in_one_request_is_told_and_logged(serve_script, caplog, monkeypatch):
    server = serve_script()

    def add(request):
        raise RuntimeError("inner words")

    monkeypatch.setattr(server.answering, "add", add)
    status, _, body = ask(server)
    assert status == 500 and "inner words" not in str(body) and "inner words" in caplog.text
    monkeypatch.undo()
    assert ask(server)[0] == 200


def test_a_dead_engine_ends_the_server(serve_script, wait_until, capsys):
    server = serve_script()
    server.answering.may_step.clear()
    answers, thread = ask_in_thread(server)
    wait_until(lambda: server.answering.left)
    server.answering.fault = RuntimeError("device\nlost")
    server.answering.may_step.set()
    thread.join()
    assert answers[0][0] == 500 and "the engine has stopped" in str(answers[0][2])
    assert server.wait() == 1
    assert capsys.readouterr().err == "error: the engine stopped: RuntimeError: device lost\n"


def test_health_tells_of_a_dead_engine(serve_script):
    server = serve_script()
    work = server.listener._work
    assert server.request("GET", "/health")[::2] == (200, {"status": "ok"})
    work.engine.death = RuntimeError("gone")
    assert server.request("GET", "/health")[::2] == (503, {"status": "the engine has stopped"})
    assert ask(server)[0] == 500
    work.engine.death = None


def test_a_drain_finishes_what_runs_and_refuses_the_rest(serve_script, wait_until):
    server = serve_script()
    server.answering.may_step.clear()
    answers, thread = ask_in_thread(server)
    wait_until(lambda: server.answering.left)
    server.leave()
    wait_until(lambda: server.request("GET", "/health")[0] == 503)
    status, _, body = ask(server)
    assert status == 503 and body["error"]["code"] == "shutting_down"
    server.answering.may_step.set()
    thread.join()
    assert answers[0][0] == 200 and server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(server)


def test_a_drain_has_an_end(serve_script, wait_until):
    server = serve_script(drain_timeout=0.2)
    server.answering.seconds_a_step = 0.05
    answers, thread = ask_in_thread(server, 200)
    with posted(server, 200) as stream:
        wait_until(lambda: server.answering.num_steps > 2)
        server.leave()
        thread.join()
        assert b"shut down before" in stream.getresponse().read()
    assert answers[0][0] == 503 and "shut down before" in answers[0][2]["error"]["message"]
    assert server.wait() == 0


def test_the_log_has_a_line_a_request_and_none_of_its_words(serve_script, caplog):
    caplog.set_level(logging.INFO, "infer.server")
    server = serve_script()
    ask(server)
    server.request("GET", "/%0Aforged")
    time.sleep(0.05)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("POST /v1/completions 200, ok, 12 + 3 tokens, ")
    assert lines[1].startswith("GET /%0Aforged 404, ")
    assert "secret" not in caplog.text
