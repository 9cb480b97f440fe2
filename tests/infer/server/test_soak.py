"""Two hundred clients at once, some of them rude, for as long as `LLAMA_JAX_SOAK_SECONDS` says."""

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import urllib.request

import openai
import pytest

NUM_CLIENTS = 200
SECONDS = float(os.environ.get("LLAMA_JAX_SOAK_SECONDS", "20"))
# What the process may grow by from the end of a quarter of the time to its end. Python's allocator
# and the kernel's socket buffers breathe; a leak of one small object a request would show as more.
MAX_GROWTH_MIB = 40


def resident_mib(pid):
    """What the process holds in memory now."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def metrics(address):
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


async def client(ask, number, deadline, outcomes):
    """Asks again and again, in every way there is; counts how it ended."""
    chance = random.Random(number)
    while time.monotonic() < deadline:
        fields = {
            "model": "chat",
            "messages": [{"role": "user", "content": "x" * chance.randrange(1, 100)}],
            "max_tokens": chance.randrange(1, 60),
            "seed": chance.randrange(2**32),
            "temperature": chance.choice([0, 1]),
        }
        kind = chance.choice(["whole", "whole", "stream", "stream", "leave", "samples"])
        try:
            if kind == "whole":
                await ask.chat.completions.create(**fields)
            elif kind == "samples":
                await ask.chat.completions.create(**fields, n=2, logprobs=True, top_logprobs=2)
            else:
                async with await ask.chat.completions.create(**fields, stream=True) as stream:
                    async for _ in stream:
                        if kind == "leave":
                            break
            outcomes[kind] = outcomes.get(kind, 0) + 1
        except openai.RateLimitError as error:
            outcomes["refused"] = outcomes.get("refused", 0) + 1
            await asyncio.sleep(float(error.response.headers["retry-after"]) * chance.random())


async def soak(address, pid, deadline):
    """How requests ended, and memory over time, in MiB."""
    outcomes, memory = {}, []

    async def watch():
        while time.monotonic() < deadline:
            memory.append(resident_mib(pid))
            await asyncio.sleep(0.5)

    # One package object, which opens a connection for each that asks at the same time.
    async with openai.AsyncOpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120
    ) as ask:
        clients = [client(ask, i, deadline, outcomes) for i in range(NUM_CLIENTS)]
        await asyncio.gather(watch(), *clients)
    return outcomes, memory


@pytest.mark.slow
def test_two_hundred_clients_leave_nothing_behind(chat_checkpoint, wait_until):
    command = [sys.executable, "-m", "llama_jax", "serve", str(chat_checkpoint), "--port", "0"]
    command += ["--rows", "32", "--max-queue", "128", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[-1]
        outcomes, memory = asyncio.run(soak(address, process.pid, time.monotonic() + SECONDS))
        wait_until(lambda: metrics(address)["llama_jax_rows_running"] == 0)
        after = metrics(address)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    print(json.dumps({"outcomes": outcomes, "MiB": [round(mib) for mib in memory]}))
    assert process.returncode == 0 and not err
    assert after["llama_jax_pages_used"] == after["llama_jax_requests_waiting"] == 0
    assert {"whole", "stream", "leave", "samples", "refused"} <= outcomes.keys()
    failed = [name for name in after if 'outcome="error"' in name or 'outcome="timeout"' in name]
    assert not failed
    settled = memory[len(memory) // 4]
    assert max(memory[len(memory) // 4 :]) - settled < MAX_GROWTH_MIB
