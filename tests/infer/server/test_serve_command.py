"""`llama-jax serve` as an operator has it: a process of its own, ended by signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from tokenizers import pre_tokenizers

from infer.server.serve_command import default_name
from llama_jax.__main__ import main

# Of the models in conftest.py, in the order of their ids.
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


class Served:
    """A process of `llama-jax serve` that answers, with the key `k`."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llama_jax", "serve", *arguments, "--port", "0", "--rows", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LLAMA_JAX_API_KEY": "k"},
        )
        line = self.process.stdout.readline()
        match = re.fullmatch(r"serving (.*) at (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line + self.process.stderr.read()
        self.name, self.address = match.groups()

    def stream(self, max_tokens):
        """The response to a request for so many tokens, as they come."""
        fields = {"model": self.name, "prompt": "Hi", "max_tokens": max_tokens, "stream": True}
        fields |= {"temperature": 1, "seed": 1, "ignore_eos": True}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        body = json.dumps(fields).encode()
        request = urllib.request.Request(f"{self.address}/v1/completions", body, headers)
        return urllib.request.urlopen(request, timeout=60)

    def end(self):
        """The exit code and what went to stderr."""
        out, err = self.process.communicate(timeout=60)
        assert not out
        return self.process.returncode, err


@pytest.fixture
def served():
    started = []

    def start(*arguments):
        started.append(Served(*arguments))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.communicate()


@pytest.mark.slow
def test_sigterm_lets_what_runs_finish(chat_checkpoint, served):
    server = served(str(chat_checkpoint))
    assert server.name == "chat"
    with urllib.request.urlopen(f"{server.address}/health", timeout=60) as response:
        assert json.load(response) == {"status": "ok"}
    with server.stream(240) as response:
        assert response.readline().startswith(b"data: ")
        server.process.send_signal(signal.SIGTERM)
        rest = response.read().decode()
    assert rest.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in rest
    code, err = server.end()
    assert code == 0, err
    assert "compiled 1 of" in err
    assert re.search(r"POST /v1/completions 200, ok, \d+ \+ 240 tokens, [\d.]+ s\n", err)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(chat_checkpoint, served):
    """In the middle of a drain that would take long; not if it comes twice, as from `timeout`."""
    server = served(str(chat_checkpoint), "--served-model-name", "a b", "--quiet")
    assert server.name == "a b"
    # Its body never comes, so the request stays for its 600 seconds.
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head.encode())
        with urllib.request.urlopen(f"{server.address}/health", timeout=60):
            pass  # so the other has arrived too
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(timeout=0.5)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        code, err = server.end()
    assert code == 128 + signal.SIGTERM
    assert err.splitlines()[-1].endswith("a second signal: leaving at once")


@pytest.mark.slow
def test_a_guard_stands_before_and_after_the_model(chat_checkpoint, guard_checkpoint, served):
    """The guard of conftest.py, which calls a `~` unsafe, beside a model of random letters."""
    guard = [str(guard_checkpoint), "--guard-max-length", "2048", "--guard-rows", "2"]
    server = served(str(chat_checkpoint), "--guard", *guard)

    def ask(prompt, **fields):
        fields = {"prompt": prompt, "max_tokens": 24, "n": 8, "temperature": 1, **fields}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        body = json.dumps(fields).encode()
        request = urllib.request.Request(f"{server.address}/v1/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    status, body = ask("Tell me ~")
    assert (status, body["error"]["code"]) == (400, "content_filter")
    biased = {"logit_bias": {str(LETTERS.index("~")): 3}, "seed": 1}
    status, body = ask("Hi", **biased)
    assert status == 200
    ends = {choice["finish_reason"] for choice in body["choices"]}
    assert {"content_filter"} < ends
    for choice in body["choices"]:
        withheld = choice["finish_reason"] == "content_filter"
        assert withheld == (choice["text"] == "") == (choice["stop_reason"] == "S1")
        assert "~" not in choice["text"]
    server.process.send_signal(signal.SIGTERM)
    code, err = server.end()
    assert code == 0, err
    assert "POST /v1/completions 400, content_filter, " in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--guard-rows", "4"], "--guard-rows does nothing without a guard: add --guard MODEL"),
        (["--guard", "x", "--guard-exclude-category", "S15"], "category 'S15': is unknown"),
        (["--guard", "x", "--guard-categories", "/nowhere.json"], "/nowhere.json"),
        (["--guard", "x", "--guard-max-length", "0"], "--guard-max-length must be at least 1"),
        (["--rows", "0"], "--rows must be at least 1"),
        (["--max-length", "0"], "--max-length must be at least 1"),
        (["--cache-gigabytes", "0"], "--cache-gigabytes must be above 0"),
        (["--cache-gigabytes", "1e-9", "--port", "0"], "GB of cache"),
        (["--max-queue", "-1"], "--max-queue"),
        (["--api-key-file", "/nowhere.txt"], "/nowhere.txt"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--host", "256.0.0.1"], "--host 256.0.0.1"),
        (["--kv-cache-dtype", "int3"], "int8"),
    ],
)
def test_bad_arguments_end_in_one_line(chat_checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(chat_checkpoint), *arguments])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out
    assert message in err.splitlines()[-1] and "Traceback" not in err


def test_one_of_several_processes_does_not_serve(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(SystemExit) as stop:
        main(["serve", "anything"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: this is one of several processes (Slurm), and each would serve a model by itself: "
        "start one, with srun --ntasks=1\n"
    )


def test_a_port_that_is_taken_is_told(chat_checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SystemExit):
            main(["serve", str(chat_checkpoint), "--port", str(taken.getsockname()[1])])
    assert "in use; take another, or port 0" in capsys.readouterr().err


def test_a_model_is_called_by_the_end_of_its_path(tmp_path, monkeypatch):
    (tmp_path / "llama").mkdir()
    (tmp_path / "small.Q4_1.gguf").touch()
    assert default_name(str(tmp_path / "llama") + "/") == "llama"
    assert default_name(str(tmp_path / "small.Q4_1.gguf")) == "small.Q4_1"
    assert default_name("meta-llama/Llama-3.1-8B-Instruct") == "Llama-3.1-8B-Instruct"
    (tmp_path / "newest").symlink_to(tmp_path / "llama")
    assert default_name(str(tmp_path / "newest")) == "newest"
    monkeypatch.chdir(tmp_path / "llama")
    assert default_name(".") == "llama"
