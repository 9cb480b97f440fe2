"""What the devices here can do at most: published for accelerators, measured for a CPU."""

from typing import Any

import jax
import ml_dtypes
import numpy as np

from infer.batch.work_done import DevicePeaks
from llama_jax.accelerators import accelerator
from llama_jax.machine_roofline import matmul_rate, read_bandwidth

_SECONDS = 0.5  # for each of the two measurements of a CPU
_FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


def device_peaks(params: Any, *, num_devices: int) -> DevicePeaks | None:
    """Of `num_devices` devices like the first, for the dtype of `params`; None if nobody knows.

    A CPU is measured, in about two seconds, with JAX alone: what others would reach on it may be
    more. `llama-jax bench infer` asks them too.
    """
    device = jax.local_devices()[0]
    dtype = params["embedding"].dtype
    if device.platform == "cpu":
        flops = matmul_rate(str(dtype), with_torch=False, budget=_SECONDS)
        return DevicePeaks(
            read_bandwidth(with_torch=False, budget=_SECONDS), flops, f"in {dtype}, measured"
        )
    peaks = accelerator(device.device_kind)
    if peaks is None:
        return None
    has_fp8 = any(leaf.dtype == _FP8 for leaf in jax.tree.leaves(params))
    flops = peaks.fp8_flops if has_fp8 and peaks.fp8_flops else peaks.bf16_flops
    name = device.device_kind if num_devices == 1 else f"{num_devices} {device.device_kind}"
    return DevicePeaks(
        peaks.memory_bandwidth * num_devices, flops * num_devices, f"of {name}, published"
    )
