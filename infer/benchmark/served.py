"""The served suite: what clients of a server wait for, at several concurrencies, server by server.

One server runs at a time. The prompts are texts of the offline job's lengths, each used once, so
that no server finds a prompt in its cache; answers are greedy and end at their limit, or earlier
with the end of text. A first request per client, not counted, warms the server up.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infer.benchmark.latencies import summarise
from infer.benchmark.served_client import run_clients
from infer.benchmark.server_process import Server, ServerProcess

_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class ServedWorkload:
    """Attributes:
    prompts: texts; each measurement takes as many as it needs, those of warming up first.
    max_tokens: of each answer.
    concurrencies: numbers of clients, one measurement each.
    requests_per_client: how many each sends on average.
    """

    prompts: tuple[str, ...]
    max_tokens: int
    concurrencies: tuple[int, ...]
    requests_per_client: int

    def num_requests(self, concurrency: int) -> int:
        """At least eight: fewer have no percentiles to speak of."""
        return max(8, concurrency * self.requests_per_client)

    @property
    def num_prompts(self) -> int:
        """Prompts that all measurements of one server take."""
        return sum(n + self.num_requests(n) for n in self.concurrencies)


def measure_served(
    servers: Sequence[Server], workload: ServedWorkload, *, quiet: bool
) -> list[dict[str, Any]]:
    """One row for each server and concurrency.

    Raises:
      InputError: a server does not start or does not answer.
    """
    rows = []
    for server in servers:
        with ServerProcess(server) as process:
            unused = iter(workload.prompts)
            for concurrency in workload.concurrencies:
                sizes = (concurrency, workload.num_requests(concurrency))
                warm_up, measured = (
                    [_body(server, process, next(unused), workload) for _ in range(size)]
                    for size in sizes
                )
                url = f"{process.url}/completions"
                run_clients(url, warm_up, concurrency=concurrency, timeout=_TIMEOUT_SECONDS)
                times, errors = run_clients(
                    url, measured, concurrency=concurrency, timeout=_TIMEOUT_SECONDS
                )
                row = {"server": server.name, "dtype": server.dtype, "concurrency": concurrency}
                row |= summarise(times) if times else {}
                rows.append(row | {"errors": len(errors), "first_errors": errors[:3]})
                if not quiet:
                    print(_line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _body(
    server: Server, process: ServerProcess, prompt: str, workload: ServedWorkload
) -> dict[str, Any]:
    return {
        "model": process.model,
        "prompt": prompt,
        "max_tokens": workload.max_tokens,
        "temperature": 0,
        "stream": True,
        **server.fields,
    }


def _line(row: dict[str, Any]) -> str:
    start = f"{row['server']}, {row['concurrency']} clients"
    if "tokens_per_second" not in row:
        return f"{start}: {row['first_errors'][0]}"
    return (
        f"{start}: {row['tokens_per_second']:,.1f} tokens/s, "
        f"TTFT {row['ttft_seconds']['p50']:.3g} s"
        + (f", {row['errors']} errors" if row["errors"] else "")
    )
