"""Devices that are not here: what a compiler needs to know of a TPU pod.

libtpu compiles for any topology on a machine without a TPU (`pip install 'llama-jax[tpu]'`).
"""

import os

import jax
from jax.experimental import topologies

from llama_jax.errors import InputError


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a TPU topology such as `v5p:2x2x4` or `v5e:4x4`; they compile and never run.

    Raises `InputError` if the name is not one that libtpu knows, or libtpu is not installed.
    """
    # Without a TPU, libtpu would ask a metadata server and lock a chip.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:  # XLA raises several kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"topology {name!r}: not known ({reason}); names are like v5e:4x4 and v5p:2x2x4, and "
            "libtpu must be installed: pip install 'llama-jax[tpu]'"
        ) from error
