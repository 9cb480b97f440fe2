"""The profiler window writes real traces of the steps it is asked for, and of no others."""

import gzip
import json
import subprocess
import sys

import jax
import pytest

from train.config import ProfileWindow
from train.profiler import Profiler


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def traced_steps(profiler, first, last):
    traced = []
    with profiler:
        for step in range(first, last):
            with profiler.step(step):
                if profiler.is_tracing:
                    traced.append(step)
    return traced


@pytest.mark.parametrize(
    "first, last, expected",
    [(0, 10, [3, 4]), (4, 10, [4]), (5, 10, []), (0, 4, [3])],
    ids=["whole", "resumed within", "resumed after", "ended within"],
)
def test_the_window_is_traced(tmp_path, calls, first, last, expected):
    assert traced_steps(Profiler(tmp_path, ProfileWindow(3, 2)), first, last) == expected
    assert calls == ([str(tmp_path / "profile"), "stop"] if expected else [])


def test_no_window_traces_nothing(tmp_path, calls):
    assert traced_steps(Profiler(tmp_path, None), 0, 5) == []
    assert calls == []


def test_an_error_within_the_window_ends_the_trace(tmp_path, calls):
    profiler = Profiler(tmp_path, ProfileWindow(0, 5))
    with pytest.raises(OSError), profiler, profiler.step(0):
        raise OSError
    assert calls[-1] == "stop" and not profiler.is_tracing


def test_a_trace_names_its_steps(tmp_path):
    """In a process of its own: the profiler of one process can trace once at a time."""
    script = f"""
import jax, jax.numpy as jnp
from train.config import ProfileWindow
from train.profiler import Profiler
multiply = jax.jit(lambda x: x @ x)
x = jnp.ones((64, 64))
with Profiler({str(tmp_path)!r}, ProfileWindow(2, 2)) as profiler:
    for step in range(6):
        with profiler.step(step, results=x):
            x = multiply(x) / 64
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {e["args"]["step_num"] for e in events if e.get("name") == "train" and "args" in e}
    assert steps == {"2", "3"}
