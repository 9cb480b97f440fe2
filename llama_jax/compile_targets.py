"""Devices that are not here: what a compiler needs to know of a TPU topology or a Hopper GPU.

libtpu compiles for any TPU topology on a machine without a TPU, and jax-cuda13-plugin with `ptxas`
for an NVIDIA GPU that is only described (`pip install '.[plan]'`). The programs compile and
never run.
"""

import os

import jax

from llama_jax.errors import InputError

# What XLA would read from the driver. Numbers: NVIDIA's data sheets of H100 SXM and H200, and the
# occupancy table for compute capability 9.0 of the CUDA programming guide. Without
# `runtime_version` XLA leaves 8-bit products to bfloat16, without a word; without
# `feature_extension` there is no `wgmma`.
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  clock_rate_ghz: 1.98
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""
GPU_TARGETS = {
    "h100": _HOPPER.format(
        name="NVIDIA H100 80GB HBM3", bandwidth=3350000000000, memory=85030000000
    ),
    "h200": _HOPPER.format(name="NVIDIA H200", bandwidth=4800000000000, memory=150750000000),
}


def target_devices(name: str) -> list[jax.Device]:
    """The devices of `name`: they compile and never run.

    Args:
      name: a TPU topology such as `v5p:2x2x4` or `v5e:4x4`; a GPU, `h100` or `h200`, or a node of
        them, `h100:8`.

    Raises:
      InputError: a name that no compiler knows, or the compiler is not installed.
    """
    kind, colon, count = name.partition(":")
    if kind not in GPU_TARGETS:
        return _tpu_devices(name)
    if colon and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise InputError(f"target {name!r}: after the colon goes a number of GPUs, as in h100:8")
    return _gpu_devices(GPU_TARGETS[kind], int(count or 1), name)


def _gpu_devices(description: str, count: int, name: str) -> list[jax.Device]:
    return _topology_devices(
        "cuda",
        "",
        f"target {name!r}: not available ({{reason}}); compiling for GPUs needs the CUDA plugin: "
        "pip install '.[plan]'",
        target_config=description,
        topology=f"1x1x{count}",
    )


def _tpu_devices(name: str) -> list[jax.Device]:
    # Without a TPU, libtpu would ask a metadata server and lock a chip.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    message = (
        f"target {name!r}: not known ({{reason}}); names are like v5e:4x4 and v5p:2x2x4, h100 and "
        "h100:8; libtpu must be installed for TPUs: pip install '.[tpu]'"
    )
    if ":" not in name:  # libtpu would take whatever it thinks is here
        raise InputError(message.format(reason="no topology after a colon"))
    return _topology_devices("tpu", name, message)


def _topology_devices(platform: str, name: str, message: str, **options) -> list[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform=platform, topology_name=name, **options
        ).devices
    except Exception as error:  # XLA raises several kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(message.format(reason=reason)) from error
