"""Percentiles and rates, computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.benchmark.latencies import RequestTimes, percentile, summarise


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_percentile_is_numpys_of_the_same_definition(values, percent):
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(values, percent) == expected


def test_summary_of_two_requests():
    summary = summarise([RequestTimes(0.0, 1.0, 3.0, 5), RequestTimes(1.0, 1.5, 5.0, 1)])
    assert summary["seconds"] == 5.0 and summary["tokens_per_second"] == pytest.approx(6 / 5)
    assert summary["ttft_seconds"] == {"p50": 0.5, "p90": 1.0, "p99": 1.0}
    # One token has no time per token.
    assert summary["tpot_seconds"] == {"p50": 0.5, "p90": 0.5, "p99": 0.5}
    assert summary["latency_seconds"] == {"p50": 3.0, "p90": 4.0, "p99": 4.0}
