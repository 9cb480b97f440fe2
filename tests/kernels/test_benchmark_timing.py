"""A benchmark's loop must keep the work it times."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels import benchmark_timing
from llama_jax.kernels.benchmark_timing import looped, median_seconds
from llama_jax.kernels.compiler_report import compile_for_gpu


def product(x, weight):
    return jax.lax.dot_general(x, weight, (((1,), (1,)), ((), ())))


def test_every_call_stays_in_the_loop_on_a_gpu():
    pytest.importorskip("jax_plugins.xla_cuda13")
    x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
    weight = jax.ShapeDtypeStruct((1024, 512), jnp.bfloat16)
    hlo = compile_for_gpu(looped(product, 50), [(x, weight), (x, weight)]).hlo
    of_loop = re.findall(r"= .*(?:fusion|custom-call)\(.*while/body/.*dot_general", hlo)
    assert len(of_loop) == 2


def test_seconds_are_those_of_one_call(monkeypatch):
    monkeypatch.setattr(benchmark_timing, "_PROGRAM_SECONDS", 0.02)
    size = 512
    arrays = [jax.random.normal(jax.random.key(i), (size, size)) for i in range(2)]
    one = median_seconds(product, (arrays[0], arrays[1]), repetitions=3)
    two = median_seconds(product, (arrays[0], arrays[1]), tuple(arrays[::-1]), repetitions=3)
    # The same work each call, however many sets. Other work on the machine may well double a time.
    assert one / 4 < two < 4 * one
    # No processor multiplies at 100 TFLOP/s: a call that was left out would seem to.
    assert 2 * size**3 / one < 100e12


def test_the_loop_computes_what_the_function_does():
    x, weight = np.ones((4, 8), np.float32), np.ones((2, 8), np.float32)
    (result,) = jax.jit(looped(product, 3))([(x, weight)])
    np.testing.assert_array_equal(result, 8.0)
