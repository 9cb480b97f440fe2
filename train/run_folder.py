"""Whether a folder may hold a run: what lies there already must be one."""

from pathlib import Path

from llama_jax.errors import InputError
from train.output_folder import check_output_folder
from train.run_json import CONFIG_FILE


def check_run_folder(output: str | Path) -> None:
    """Raises `InputError` unless `output` may hold a run: it is absent, empty or holds one already.

    What else is there, such as the data to train on, is not to be mixed with a run. Hidden files
    are left out: a desktop leaves some in any folder, and so does a run that has hardly begun.
    """
    check_output_folder(output)
    output = Path(output)
    if not output.exists() or (output / CONFIG_FILE).is_file():
        return
    found = sorted(path.name for path in output.iterdir() if not path.name.startswith("."))
    if found:
        raise InputError(
            f"--output {output}: holds {found[0]} and no run (no {CONFIG_FILE}); name another "
            "folder"
        )
