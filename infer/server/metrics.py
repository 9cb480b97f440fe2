"""Counters and histograms for Prometheus, in a registry of their own.

The engine's numbers are read when they are asked for, from what it left after its last step.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from infer.engine.engine import EngineUsage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds, from a GPU's single token to a long wait in the queue.
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

_GAUGES = {
    "waiting": ("requests_waiting", "Rows that wait for a place."),
    "running": ("rows_running", "Rows that the engine works on."),
    "pages_used": ("pages_used", "Pages of the key-value cache that running rows hold."),
    "pages_kept": ("pages_kept", "Pages kept for prompts that may come again."),
    "num_pages": ("pages", "Pages of the key-value cache."),
}
_COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Prompt tokens computed."),
    "shared_tokens": ("shared_tokens", "Prompt tokens found in pages of others."),
    "new_tokens": ("new_tokens", "Tokens chosen."),
    "decode_steps": ("decode_steps", "Steps of the decode loop."),
    "preemptions": ("preemptions", "Rows that lost their pages for a time."),
}


class Metrics:
    """What the server counts, and the text of it.

    Args:
      usage: reads the engine's last numbers.
    """

    def __init__(self, usage: Callable[[], EngineUsage]):
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(usage))
        self.requests = Counter(
            "llama_jax_requests",
            "Requests by how they ended.",
            ["outcome"],
            registry=self._registry,
        )
        self.filtered = Counter(
            "llama_jax_filtered",
            "Prompts and answers that the guard withheld.",
            ["place"],
            registry=self._registry,
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token", "From the arrival of a request to its first token.", _WAITS
        )
        self.time_per_token = self._histogram(
            "time_per_token", "Of a finished answer's tokens after the first, each.", _STEPS
        )
        self.request_time = self._histogram(
            "request_time", "From the arrival of a request to its end.", _WAITS
        )

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"llama_jax_{name}_seconds", text, buckets=buckets, registry=self._registry
        )


class _EngineCollector:
    def __init__(self, usage: Callable[[], EngineUsage]):
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        usage = self._usage()
        for field, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"llama_jax_{name}", text, getattr(usage, field))
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"llama_jax_{name}", text, getattr(usage, field))
