"""The offline suite with contestants whose speed, answers and failures are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from infer.benchmark.contestant import Entry
from infer.benchmark.contestant_process import ContestantError
from infer.benchmark.offline import measure_offline, same_tokens
from infer.benchmark.offline_report import OURS, job_bytes, job_flops, offline_report
from infer.benchmark.peaks import Peaks
from infer.benchmark.workload import Workload
from llama_jax.config import TINY
from llama_jax.costs import forward_flops_per_token, kv_bytes_per_token

WORKLOAD = Workload(prompts=((1, 2, 3), (4,)), new_tokens=4, text_sha256="")
PEAKS = Peaks(bytes=1e9, flops={"float32": 1e12})


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The contestants' processes look for the fakes where this process does."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])


def entry(side, factory="Counting", arguments=None, **fields):
    return Entry(side, "float32", f"fake_contestants:{factory}", arguments or {}, **fields)


def test_the_fastest_variant_goes_on_and_the_report_adds_up():
    variants = ({"slow": 0.3}, {"slow": 0.02})
    entries = [entry(OURS), entry("peer", arguments={"offset": 1}, variants=variants)]
    measured = measure_offline(entries, WORKLOAD, repetitions=3, quiet=True)
    report = offline_report(TINY, WORKLOAD, measured, peaks=PEAKS)
    ours, peer = report["rows"]
    assert peer["settings"] == {"slow": 0.02}
    assert [trial["slow"] for trial in peer["trials"]] == [0.3, 0.02]
    assert len(peer["seconds"]) == 3 and 0.02 <= min(peer["seconds"]) < 0.3
    assert peer["tokens_per_second"] == pytest.approx(8 / min(peer["seconds"]))
    ratio = ours["tokens_per_second"] / peer["tokens_per_second"]
    assert report["ratios"] == {"peer": {"float32": ratio, "best": ratio}}
    assert (ours["same_tokens"], peer["same_tokens"]) == (1.0, 0.0)
    seconds = min(ours["seconds"])
    assert ours["fraction_of_flops"] == pytest.approx(report["job_flops"] / seconds / 1e12)


@pytest.mark.parametrize(
    "factory, message",
    [
        ("Failing", "ValueError: cannot run (fake_contestants.py:"),
        ("Dying", "its process ended with 3"),
        ("unmakeable", "ImportError: no such package"),
    ],
)
def test_a_side_that_fails_is_a_row_with_its_reason(factory, message):
    entries = [entry(OURS), entry("peer", factory)]
    measured = measure_offline(entries, WORKLOAD, repetitions=2, quiet=True)
    rows = offline_report(TINY, WORKLOAD, measured, peaks=PEAKS)["rows"]
    assert message in rows[1]["error"] and len(rows[0]["seconds"]) == 2
    with pytest.raises(ContestantError, match="peer, float32"):
        measure_offline(
            [entry("peer", factory, optional=False)], WORKLOAD, repetitions=1, quiet=True
        )


def test_tokens_are_the_same_up_to_the_first_difference():
    assert same_tokens([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 9, 4], [5, 6, 7, 8]]) == 6 / 8


def test_costs_of_the_job_are_those_of_every_token():
    head = 2 * TINY.vocab_size * TINY.model_dim
    # Tokens at positions 0 to 5 of the first row and 0 to 3 of the second.
    keys = [*range(1, 7), *range(1, 5)]
    expected = sum(forward_flops_per_token(TINY, count) - head for count in keys) + 8 * head
    assert job_flops(TINY, WORKLOAD) == pytest.approx(expected)
    dtype = np.dtype(np.float32)
    read = sum([3, 4, 5, 6, 1, 2, 3, 4]) * kv_bytes_per_token(TINY, dtype)
    assert job_bytes(TINY, WORKLOAD, weight_bytes=100, dtype=dtype) == 4 * 100 + read
