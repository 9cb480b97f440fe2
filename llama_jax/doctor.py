"""`llama-jax doctor`: what this machine has, and whether the model and the kernels
compute the same on it."""

import functools
import importlib.metadata
import os
import platform

from llama_jax.errors import InputError

# Distribution -> what needs it. The package is on no index: extras are installed from its clone.
_BASE = ("llama-jax", "jax", "jaxlib", "flax", "numpy", "ml_dtypes", "orbax-checkpoint")
_OPTIONAL = {
    "torch": "reading and writing Meta's .pth files: pip install '.[torch]'",
    "libtpu": "TPUs: pip install '.[tpu]'",
    "jax-cuda13-plugin": "NVIDIA GPUs: pip install '.[cuda]'",
    "fastapi": "serving a model: pip install '.[serve]'",
    "httpx": "asking a server: pip install '.[ask]'",
    "reasoning-gym": "its tasks as questions: pip install '.[evaluate]'",
}


def doctor(*, kernels: bool = True, kernel_seconds: float = 180.0) -> int:
    """Prints versions and devices, and checks a small model and each kernel on them.

    Exits with 1 if a device computes something else than the CPU.

    Example:
      llama-jax doctor

    Args:
      kernels: check each kernel that the device takes, in a process of its own.
      kernel_seconds: what each of them may take, which is mostly to start and to compile.
    """
    if not 0 < kernel_seconds < float("inf"):
        raise InputError(f"--kernel-seconds must be more than 0, not {kernel_seconds:g}")
    print(f"python            {platform.python_version()} on {platform.platform()}")
    print(f"processors        {os.cpu_count()}")
    for name in _BASE:
        print(f"{name:<17} {_version(name) or 'missing'}")
    for name, purpose in _OPTIONAL.items():
        print(f"{name:<17} {_version(name) or f'not installed ({purpose})'}")

    # Before this process takes the device.
    right = True
    if kernels:
        from llama_jax.kernels.parity_processes import check_kernels

        right = check_kernels(functools.partial(print, flush=True), seconds=kernel_seconds)
    import jax

    try:
        devices = jax.local_devices()
        jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise InputError(
            f"JAX finds no device ({error}); check JAX_PLATFORMS, and keep cpu in it: 'cuda,cpu'"
        ) from error
    print(f"processes         {jax.process_count()}, {jax.device_count()} devices in all")
    for device in devices:
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f", {memory / 2**30:.1f} GiB" if memory else ""
        print(f"device            {device} ({device.platform}, {device.device_kind}{size})")
    kinds = {device.device_kind: device for device in devices}
    models = [_computes_as_cpu(device) for device in kinds.values()]
    return int(not (right and all(models)))


def _computes_as_cpu(device) -> bool:
    """Whether the tiny model's logits on `device` are those of the CPU; prints the difference."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from llama_jax.config import TINY
    from llama_jax.model import forward, init_params, logits

    def scores(key):
        params = init_params(TINY, key)
        tokens = jax.random.randint(jax.random.key(1), (2, 64), 0, TINY.vocab_size)
        with jax.default_matmul_precision("highest"):
            hidden = forward(params, tokens, config=TINY)
            return logits(params, hidden, config=TINY).astype(jnp.float32)

    results = []
    for where in (jax.local_devices(backend="cpu")[0], device):
        with jax.default_device(where):
            results.append(np.asarray(jax.jit(scores)(jax.random.key(0))))
    expected, result = results
    difference = np.abs(result - expected).max() / np.abs(expected).max()
    # float32 with another order of summation and another implementation of exp, sin and cos.
    same = bool(difference < 1e-4)
    verdict = "ok" if same else "WRONG: do not use this device"
    print(f"model             {device.device_kind}: {difference:.1e} from the CPU, {verdict}")
    return same


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
