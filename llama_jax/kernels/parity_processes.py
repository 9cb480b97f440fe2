"""A process with a time limit for each kernel's check: one that hangs or dies stops no other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

CHECK = (sys.executable, "-m", "llama_jax.kernels.parity")
WHY = "python -m llama_jax.kernels.parity"


def check_kernels(
    say: Callable[[str], None], *, seconds: float, command: Sequence[str] = CHECK
) -> bool:
    """Whether no kernel that this machine's device takes computes anything wrong.

    To be called before JAX has taken the device: a TPU belongs to one process at a time.

    Args:
      say: is given a line for each kernel, and one for all that the device does not take.
      seconds: limit of each process, which has to start and to compile.
      command: that lists kernels, and with a name runs one (`parity.py`).
    """
    found = _run(command, seconds)
    if isinstance(found, str):
        say(f"kernels           WRONG: {found}")
        return False
    all_right = True
    for name, reason in found.items():
        if reason is None:
            verdict, right = _verdict(_run([*command, name], seconds))
            say(f"kernel            {name}: {verdict}")
            all_right &= right
    if elsewhere := [name for name, reason in found.items() if reason is not None]:
        say(f"elsewhere         {', '.join(elsewhere)} (why says {WHY})")
    return all_right


def _verdict(result: dict[str, Any] | str) -> tuple[str, bool]:
    if isinstance(result, str):
        return f"WRONG: {result}", False
    right = result["error"] <= result["tolerance"]  # NaN is not
    verdict = "ok" if right else f"WRONG: more than {result['tolerance']:g}; do not use it here"
    return f"{result['error']:.1e} from plain jnp on the CPU, {verdict}", right


def _run(command: Sequence[str], seconds: float) -> dict[str, Any] | str:
    """What the process printed last, as JSON; or in one line what became of it."""
    # Beside a process that has taken most of a GPU's memory.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:g} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"ended with code {done.returncode}: {lines[-1]}"
    return json.loads(done.stdout.splitlines()[-1])
