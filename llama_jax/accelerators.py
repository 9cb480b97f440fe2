"""What an accelerator can do at most, by the name that JAX gives it (`device.device_kind`).

Dense products, no sparsity; bytes are powers of ten. One entry is one JAX device: a whole chip for
TPU v4 and v5p, one of the two cores of a TPU7x chip, one of the two GPUs of a GB200.

Sources. TPUs: the tables of `jax.experimental.pallas.tpu.get_tpu_info` (JAX 0.10.2) and Google's
pages on each version (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x); they disagree only on
the bandwidth of v5p (2.46e12), where Google's is taken. NVIDIA: the data sheets of A100, H100, H200
and B200, where peaks are given with sparsity: half of that here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    """Peaks of one JAX device.

    Attributes:
      bf16_flops: bfloat16 matrix products, operations a second; a multiply-add is two.
      fp8_flops: of 8-bit floating point; None where they are not faster than bfloat16.
      memory_bandwidth: bytes a second.
      memory_bytes: of its memory, before what the driver keeps.
    """

    bf16_flops: float
    fp8_flops: float | None
    memory_bandwidth: float
    memory_bytes: float


_V5E = Accelerator(197e12, None, 0.82e12, 17.2e9)
_V5P = Accelerator(459e12, None, 2.765e12, 103e9)
_V6E = Accelerator(918e12, None, 1.64e12, 34.4e9)
_H100_SXM = Accelerator(989.4e12, 1978.9e12, 3.35e12, 80e9)
_H200 = Accelerator(989.4e12, 1978.9e12, 4.8e12, 141e9)
_B200 = Accelerator(2250e12, 4500e12, 8.0e12, 192e9)

ACCELERATORS: dict[str, Accelerator] = {
    "TPU v4": Accelerator(275e12, None, 1.23e12, 34.4e9),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": Accelerator(1153.5e12, 2307e12, 3.69e12, 103e9),
    "NVIDIA A100-SXM4-40GB": Accelerator(312e12, None, 1.555e12, 40e9),
    "NVIDIA A100-SXM4-80GB": Accelerator(312e12, None, 2.039e12, 80e9),
    "NVIDIA A100-PCIE-40GB": Accelerator(312e12, None, 1.555e12, 40e9),
    "NVIDIA A100 80GB PCIe": Accelerator(312e12, None, 1.935e12, 80e9),
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H100 PCIe": Accelerator(756e12, 1513e12, 2.0e12, 80e9),
    "NVIDIA H100 NVL": Accelerator(835.5e12, 1671e12, 3.938e12, 94e9),
    "NVIDIA H200": _H200,
    "NVIDIA H200 NVL": Accelerator(835.5e12, 1671e12, 4.8e12, 141e9),
    "NVIDIA B200": _B200,
    "NVIDIA GB200": Accelerator(2500e12, 5000e12, 8.0e12, 186e9),
}

# Words of NVIDIA's names, such as `NVIDIA H100 80GB HBM3`: compute capability 9.0, and above.
_HOPPER = frozenset(("H20", "H100", "H200", "H800", "GH200"))
_AFTER_HOPPER = frozenset(("B100", "B200", "B300", "GB200", "GB300"))


def accelerator(device_kind: str) -> Accelerator | None:
    """Peaks of `device_kind`; None for what is not in the table, a CPU or a part of a GPU (MIG)."""
    return ACCELERATORS.get(device_kind)


def is_hopper(device_kind: str) -> bool:
    """Whether it is a Hopper GPU, with the WGMMA instructions that no other generation has."""
    return not _HOPPER.isdisjoint(device_kind.split())


def is_hopper_or_later(device_kind: str) -> bool:
    """Whether it is a data centre GPU of NVIDIA's, Hopper or Blackwell."""
    return not (_HOPPER | _AFTER_HOPPER).isdisjoint(device_kind.split())
