"""The machine's measured peaks, which the suites hold their numbers against."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peaks:
    """Attributes:
    bytes: read from memory a second, by all cores.
    flops: dtype -> floating-point operations a second of a large matrix product.
    """

    bytes: float
    flops: dict[str, float]

    def report(self) -> dict[str, Any]:
        return {"peak_bytes_per_second": self.bytes, "peak_flops_per_second": self.flops}


def measure_peaks(dtypes: Sequence[str], *, quiet: bool) -> Peaks:
    """In this process, by `machine_roofline.py`."""
    from llama_jax.machine_roofline import matmul_rate, read_bandwidth

    peaks = Peaks(read_bandwidth(), {dtype: matmul_rate(dtype) for dtype in dtypes})
    if not quiet:
        rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s {name}" for name, rate in peaks.flops.items())
        print(f"peaks: {peaks.bytes / 1e9:.1f} GB/s read, {rates}", file=sys.stderr)
    return peaks
