"""Work that needs JAX, but no accelerator."""

import os

import jax


def stay_on_host() -> None:
    """Keeps JAX off accelerators for the rest of the process, unless `JAX_PLATFORMS` says which to
    use: Orbax asks JAX which process this is, and that must not take hold of a GPU's memory."""
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")
