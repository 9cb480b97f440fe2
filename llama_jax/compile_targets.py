"""Devices that are not here: what a compiler needs to know of a TPU topology or of NVIDIA GPUs.

libtpu compiles for any TPU topology on a machine without a TPU, and jax-cuda13-plugin with `ptxas`
for an NVIDIA GPU that is only described (`pip install '.[plan]'`). The programs compile and
never run.
"""

import importlib.util
import os
import re

import jax

from llama_jax.errors import InputError

# What XLA would read from the driver. Numbers: NVIDIA's data sheets of A100, H100 SXM, H200 and
# B200, and the table of compute capabilities of the CUDA programming guide. Without
# `runtime_version` XLA leaves 8-bit products to bfloat16, without a word; without
# `feature_extension` there is no `wgmma`.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {shared_of_a_block}
  shared_memory_per_core: {shared_memory}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  clock_rate_ghz: {clock}
  l2_cache_size: {l2}
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ {capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""
_ACCELERATED = "minor: 0 feature_extension: ACCELERATED_FEATURES"
_HOPPER = dict(
    shared_of_a_block=232448, shared_memory=233472, cores=132, fpus=128, clock=1.98, l2=52428800,
    capability=f"major: 9 {_ACCELERATED}",
)  # fmt: skip
GPU_TARGETS = {
    "a100": _GPU.format(
        name="NVIDIA A100-SXM4-80GB", bandwidth=2039000000000, memory=85030000000,
        shared_of_a_block=166912, shared_memory=167936, cores=108, fpus=64, clock=1.41, l2=41943040,
        capability="major: 8 minor: 0",
    ),
    "h100": _GPU.format(
        name="NVIDIA H100 80GB HBM3", bandwidth=3350000000000, memory=85030000000, **_HOPPER
    ),
    "h200": _GPU.format(
        name="NVIDIA H200", bandwidth=4800000000000, memory=150750000000, **_HOPPER
    ),
    "b200": _GPU.format(
        name="NVIDIA B200", bandwidth=8000000000000, memory=191500000000,
        shared_of_a_block=232448, shared_memory=233472, cores=148, fpus=128, clock=1.965,
        l2=132120576, capability=f"major: 10 {_ACCELERATED}",
    ),
}  # fmt: skip


def target_devices(name: str) -> list[jax.Device]:
    """The devices of `name`: they compile and never run.

    Args:
      name: a TPU topology such as `v5p:2x2x4` or `v5e:4x4`, or several slices of it, `2*v6e:16x16`;
        a GPU of `GPU_TARGETS`, `h100`, a node of them, `h100:8`, or nodes of so many, `h100:16x8`.

    Raises:
      InputError: a name that no compiler knows, or the compiler is not installed.
    """
    kind, colon, count = name.partition(":")
    if kind not in GPU_TARGETS:
        return _tpu_devices(name)
    sizes = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", count if colon else "1", re.ASCII)
    if not sizes:
        raise InputError(
            f"target {name!r}: after the colon goes a number of GPUs, as in h100:8, or of nodes "
            "and of each one's GPUs, as in h100:16x8"
        )
    return _gpu_devices(GPU_TARGETS[kind], int(sizes[1] or 1), int(sizes[2]), name)


def _gpu_devices(description: str, nodes: int, count: int, name: str) -> list[jax.Device]:
    if importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
        raise InputError(
            f"target {name!r}: compiling for GPUs needs jax-cuda13-plugin: pip install '.[plan]'"
        )
    return _topology_devices(
        "cuda",
        "",
        f"target {name!r}: not available ({{reason}}); compiling for GPUs needs the CUDA plugin: "
        "pip install '.[plan]'",
        target_config=description,
        topology=f"{nodes}x1x{count}",
    )


def _tpu_devices(name: str) -> list[jax.Device]:
    # Without a TPU, libtpu would ask a metadata server, lock a chip, and complain of what the two
    # last would say of the machine; what is compiled does not depend on them.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    message = (
        f"target {name!r}: not known ({{reason}}); names are like v5e:4x4 and v5p:2x2x4, h100 and "
        "h100:8"
    )
    slices, _, topology = name.rpartition("*")
    if ":" not in topology:  # libtpu would take whatever it thinks is here
        raise InputError(message.format(reason="no topology after a colon"))
    if not re.fullmatch(r"(?:[1-9]\d*)?", slices, re.ASCII):
        raise InputError(message.format(reason="before the * goes a number of slices"))
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f"target {name!r}: compiling for TPUs needs libtpu: pip install '.[tpu]'")
    options = {"num_slices": int(slices)} if slices else {}
    if re.fullmatch(r"[^:]*:1(x1)*", topology):  # a host of one chip, where others have four
        options["chips_per_host_bounds"] = (1, 1, 1)
    return _topology_devices("tpu", topology, message, **options)


def _topology_devices(platform: str, name: str, message: str, **options) -> list[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform=platform, topology_name=name, **options
        ).devices
    except Exception as error:  # XLA raises several kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(message.format(reason=reason)) from error
