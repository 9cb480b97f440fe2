"""Whether a folder may be written to: `--output` of a command, asked before any work is done."""

from pathlib import Path

from llama_jax.errors import InputError


def check_output_folder(output: str | Path) -> None:
    """Raises `InputError` if `output` or a folder above it is a file."""
    output = Path(output)
    nearest = next((path for path in (output, *output.parents) if path.exists()), Path())
    if not nearest.is_dir():
        above = "" if nearest == output else f"{nearest} "
        raise InputError(f"--output {output}: {above}is a file; name a folder")
