"""A machine whose peaks are measured in a moment."""

import pytest

import llama_jax.machine_roofline


@pytest.fixture
def quick_peaks(monkeypatch):
    monkeypatch.setattr(llama_jax.machine_roofline, "_READ_BYTES", 1 << 20)
    monkeypatch.setattr(llama_jax.machine_roofline, "_MATMUL_SIZE", 64)
    best_seconds = llama_jax.machine_roofline.best_seconds
    monkeypatch.setattr(
        llama_jax.machine_roofline, "best_seconds", lambda run, **_: best_seconds(run, budget=0.01)
    )
