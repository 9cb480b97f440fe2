"""The served suite against a server whose answers, delays and failures are known."""

import sys
from pathlib import Path

import pytest

from infer.benchmark.served import ServedWorkload, measure_served
from infer.benchmark.served_client import run_clients
from infer.benchmark.server_process import Server, ServerProcess
from llama_jax.errors import InputError

COMMAND = (sys.executable, str(Path(__file__).parent / "fake_server.py"), "{port}")
USAGE = {"stream_options": {"include_usage": True}}


def test_a_row_for_each_server_and_concurrency():
    workload = ServedWorkload(("hello",) * 40, 6, concurrencies=(1, 4), requests_per_client=2)
    servers = [
        Server("with usage", "float32", COMMAND, fields=USAGE),
        Server("without", None, COMMAND),
    ]
    rows = measure_served(servers, workload, quiet=True)
    assert [(row["server"], row["concurrency"]) for row in rows] == [
        ("with usage", 1), ("with usage", 4), ("without", 1), ("without", 4),
    ]  # fmt: skip
    for row in rows:
        assert row["errors"] == 0 and row["requests"] == 8
        # Three pieces: as many tokens as the server says, or as there are pieces.
        assert row["tokens"] == 8 * (6 if row["server"] == "with usage" else 3)
        ttft, latency = row["ttft_seconds"]["p50"], row["latency_seconds"]["p50"]
        assert 0.01 <= ttft < latency and latency >= 0.03
    # Four clients wait at the same time.
    assert rows[1]["requests_per_second"] > 1.5 * rows[0]["requests_per_second"]


def test_failed_requests_are_counted_apart():
    body = {"model": "fake", "max_tokens": 4, "stream": True}
    prompts = ["hello", "fail", "break", "silent", "hello"]
    with ServerProcess(Server("fake", None, COMMAND)) as server:
        times, errors = run_clients(
            f"{server.url}/completions",
            [{**body, "prompt": prompt} for prompt in prompts],
            concurrency=2,
            timeout=10,
        )
    assert len(times) == 2 and len(errors) == 3
    text = "\n".join(errors)
    assert "status 400" in text and "broken" in text and "without text" in text


def test_a_server_that_ends_says_why():
    command = (sys.executable, "-c", "raise SystemExit('error: no such model')")
    with pytest.raises(InputError, match="no such model"):
        ServerProcess(Server("fake", None, command))


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(InputError, match="server far at http://127.0.0.1:9"):
        ServerProcess(Server("far", None, url="http://127.0.0.1:9/v1"))
