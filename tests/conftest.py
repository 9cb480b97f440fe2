"""Tests run on the CPU, with eight devices to make meshes of."""

import os
import signal

from hypothesis import settings

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"
# libtpu is only a compiler here: no metadata server to ask, no chip to lock.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

# The first example compiles, and a shared machine may stall any other.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A job in the background of a script ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
