"""How long a function takes on the device, whatever it costs to start a program there.

A product of decoding takes some 30 us, as long as it takes to start a program, so on an accelerator
one program makes many calls, in a loop. Several sets of arguments, one after another in each turn,
keep a cache from holding what should come from memory. The median of several such programs counts.

XLA may take what does not change out of a loop, and drop results that nobody uses: arguments go
through a barrier, and all results leave the program. For GPUs and TPUs that keeps every call in the
loop (`tests/kernels/test_benchmark_timing.py` reads the compiled program); the CPU's compiler looks
through barriers, so there the loop is in Python.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# What a program should take at least, so that starting it counts for nothing, and the most calls.
_PROGRAM_SECONDS = 0.05
_MOST_TURNS = 500


def median_seconds(
    function: Callable[..., Any], *argument_sets: Sequence[Any], repetitions: int
) -> float:
    """Seconds of one call of `function`, the median of `repetitions` programs after two to warm up.

    Args:
      function: of arrays, or trees of them, to a tree of arrays.
      argument_sets: arguments of a call; several of the same shapes are used in turn.
      repetitions: programs that count.
    """
    sets = tuple(tuple(arguments) for arguments in argument_sets)
    once = jax.jit(lambda sets: [function(*arguments) for arguments in sets])
    jax.block_until_ready(once(sets))  # compiles
    turns = min(max(1, math.ceil(_PROGRAM_SECONDS / _seconds(once, sets, 1))), _MOST_TURNS)
    starts = turns
    program = once
    if jax.default_backend() != "cpu" and turns > 1:
        program, starts = jax.jit(looped(function, turns)), 1
        jax.block_until_ready(program(sets))
    times = [_seconds(program, sets, starts) for _ in range(repetitions)]
    return statistics.median(times) / (turns * len(sets))


def attempt(measure: Callable[[], float]) -> float | str:
    """Seconds, or in one line why the device or the compiler would not: a kernel that has never met
    its hardware must not end the run of the others."""
    try:
        return measure()
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def looped(function: Callable[..., Any], turns: int) -> Callable[..., Any]:
    """A function of all sets of arguments that makes a call with each, `turns` times over."""

    def run(sets):
        shapes = jax.eval_shape(lambda: [function(*arguments) for arguments in sets])
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def turn(_, before):
            here, _ = jax.lax.optimization_barrier((sets, before))
            return [function(*arguments) for arguments in here]

        return jax.lax.fori_loop(0, turns, turn, start)

    return run


def _seconds(program, sets, starts: int) -> float:
    began = time.perf_counter()
    for _ in range(starts):
        result = program(sets)
    jax.block_until_ready(result)
    return time.perf_counter() - began
