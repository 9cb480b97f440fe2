"""Programs that are compiled once and found again at the next start: JAX's persistent cache."""

import os
from pathlib import Path

# Smaller programs are compiled sooner than they are looked up.
_LEAST_SECONDS = 0.5


def keep_compiled_programs() -> Path:
    """Turns the cache on, in `$JAX_COMPILATION_CACHE_DIR` or else in the user's cache folder;
    returns the folder.

    To be called before anything is compiled. On a pod, a folder that all hosts share saves each of
    them the time: only the first process writes. Whoever sets JAX's own variables keeps them.
    """
    import jax

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        chosen = str(cache / "llama-jax" / "compiled")
        jax.config.update("jax_compilation_cache_dir", chosen)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return Path(chosen)
