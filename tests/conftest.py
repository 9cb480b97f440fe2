"""Tests run on the CPU, with eight devices to make meshes of."""

import importlib.metadata
import os
import signal

import pytest
from hypothesis import settings

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# Compiling for the CPU is much of the time of the tests, and XLA's other code generator for fusions
# is quicker at it. A later JAX has no choice, and ends the process if it is told to choose.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
os.environ["HF_HUB_OFFLINE"] = "1"
# libtpu is only a compiler here: no metadata server to ask, no chip to lock.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

# The first example compiles, and a shared machine may stall any other.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A job in the background of a script ignores SIGINT; so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_compilation_cache():
    """A command that is called in this process turns JAX's cache on for all tests that follow, and
    a program for an absent device cannot be read from there."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules that test what is computed and not how fast."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
