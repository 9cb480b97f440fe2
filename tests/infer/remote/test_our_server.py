"""`llama-jax ask` and `llama-jax serve`, each as a process of its own: what comes is what
`llama-jax batch` answers."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from llama_jax.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

ROWS = [
    {"custom_id": "plain", "messages": [{"role": "user", "content": "Why?"}], "n": 2,
     "max_tokens": 6, "temperature": 1, "metadata": {"category": "c"}},
    {"custom_id": "prompt", "prompt": "Hi", "temperature": 0},
    {"custom_id": "long", "prompt": "x" * 300},
    {"custom_id": "openai", "method": "POST", "url": "/v1/completions",
     "body": {"prompt": "Hi", "temperature": 1, "max_tokens": 5, "logprobs": 1}},
]  # fmt: skip


@contextmanager
def served(checkpoint, *options):
    """The address of a server with the key `k`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_jax", "serve", str(checkpoint), "--port", "0", "--rows", "2",
         *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "LLAMA_JAX_API_KEY": "k"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"serving (.*) at (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line + process.stderr.read()
        yield match[2]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_answers_come_over_the_wire(chat_checkpoint, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with served(chat_checkpoint) as address:
        ask = subprocess.run(
            [sys.executable, "-m", "llama_jax", "ask", f"{address}/v1", str(source),
             str(tmp_path / "asked.jsonl"), "--model", "chat", "--seed", "3",
             "--max-new-tokens", "9"],
            capture_output=True, text=True, timeout=120,
            env={**os.environ, "LLAMA_JAX_API_KEY": "k"},
        )  # fmt: skip
    assert ask.returncode == 1, ask.stderr
    assert "3 of 4 rows answered, 1 failed" in ask.stderr
    with pytest.raises(SystemExit):
        main(
            ["batch", str(chat_checkpoint), str(source), str(tmp_path / "batch.jsonl"), "--rows",
             "2", "--seed", "3", "--max-new-tokens", "9", "--quiet", "--no-roofline"]
        )  # fmt: skip
    asked, here = read(tmp_path / "asked.jsonl"), read(tmp_path / "batch.jsonl")
    assert asked[:2] == here[:2]
    (asked_choice,), (choice,) = (
        row["response"]["body"]["choices"] for row in (asked[2], here[2])
    )  # fmt: skip
    assert asked_choice["text"] == choice["text"]
    # The two processes compile with other optimisations.
    assert asked_choice["logprobs"]["token_logprobs"] == pytest.approx(
        choice["logprobs"]["token_logprobs"], abs=1e-4
    )
    (failed,) = read(tmp_path / "asked.jsonl.errors.jsonl")
    assert failed["custom_id"] == "long" and "context of 256" in failed["error"]["message"]
