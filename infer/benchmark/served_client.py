"""A closed loop of clients against an OpenAI-compatible server, over streamed completions.

Each of so many clients sends a request, reads its stream to the end, and sends the next: the
concurrency is what the server sees. Tokens are counted by the server's usage where it sends one, as
ours does; else each piece of text counts as one, which is how servers stream that decode one token
at a time.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from infer.benchmark.latencies import RequestTimes


class RequestFailed(Exception):
    """A request that was not answered as it should be, in one line."""


def run_clients(
    url: str,
    bodies: Sequence[Mapping[str, Any]],
    *,
    concurrency: int,
    timeout: float,
) -> tuple[list[RequestTimes], list[str]]:
    """Sends all `bodies`, `concurrency` of them at a time.

    Args:
      url: of the server's completions, as in `http://127.0.0.1:8000/v1/completions`.
      bodies: JSON objects that ask for a stream.
      timeout: seconds that a request may be silent.

    Returns:
      The times of those that were answered, and what went wrong with the others, a line each.
    """
    return asyncio.run(_run_clients(url, iter(bodies), concurrency, timeout))


async def _run_clients(
    url: str, bodies: Iterator[Mapping[str, Any]], concurrency: int, timeout: float
) -> tuple[list[RequestTimes], list[str]]:
    answered: list[RequestTimes] = []
    failed: list[str] = []

    async def client() -> None:
        for body in bodies:  # one iterator for all clients: each takes the next there is
            try:
                answered.append(await _request(session, url, body))
            except (RequestFailed, httpx.HTTPError, json.JSONDecodeError) as error:
                failed.append(f"{type(error).__name__}: {error}")

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as session:
        await asyncio.gather(*(client() for _ in range(concurrency)))
    return answered, failed


async def _request(session: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> RequestTimes:
    start = time.perf_counter()
    first = end = None
    num_pieces = num_tokens = 0
    async with session.stream("POST", url, json=body) as response:
        if response.status_code != 200:
            text = " ".join((await response.aread()).decode(errors="replace").split())
            raise RequestFailed(f"status {response.status_code}: {text[:200]}")
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if data == line or data == "[DONE]":  # a blank line, a comment, or the end
                continue
            chunk = json.loads(data)
            if chunk.get("error"):
                raise RequestFailed(f"error in the stream: {chunk['error']}")
            if usage := chunk.get("usage"):
                num_tokens = usage["completion_tokens"]
            if any(choice.get("text") for choice in chunk.get("choices", ())):
                end = time.perf_counter()
                first = first or end
                num_pieces += 1
    if first is None:
        raise RequestFailed("an answer without text")
    return RequestTimes(start, first, end, num_tokens or num_pieces)
