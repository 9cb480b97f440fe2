"""What the clients of a server waited, in percentiles.

TTFT is the time to the first token, from sending the request; TPOT the time per output token after
it, `(end - first) / (tokens - 1)`; latency the time to the last. A percentile is the value of the
request of that rank, not one between two requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class RequestTimes:
    """One request that was answered; times in seconds on one clock.

    Attributes:
      start: the request was sent.
      first: its first token came.
      end: its last.
      num_tokens: how many.
    """

    start: float
    first: float
    end: float
    num_tokens: int


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` per cent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summarise(requests: Sequence[RequestTimes]) -> dict[str, Any]:
    """Seconds in percentiles, and rates over the time from the first start to the last end."""
    seconds = max(r.end for r in requests) - min(r.start for r in requests)
    several = [r for r in requests if r.num_tokens > 1]
    num_tokens = sum(r.num_tokens for r in requests)
    return {
        "requests": len(requests),
        "tokens": num_tokens,
        "seconds": seconds,
        "requests_per_second": len(requests) / seconds,
        "tokens_per_second": num_tokens / seconds,
        "ttft_seconds": _percentiles([r.first - r.start for r in requests]),
        "tpot_seconds": _percentiles([(r.end - r.first) / (r.num_tokens - 1) for r in several]),
        "latency_seconds": _percentiles([r.end - r.start for r in requests]),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}
