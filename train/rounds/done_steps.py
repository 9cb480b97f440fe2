"""Which steps are done: `OUTPUT/steps.json`, replaced as a whole after each.

A step counts as done with the command line it had and the content of the files that it was given,
so that what has changed since is noticed before anything runs. The folder of the rounds may be
moved, and how steps are launched may change: neither is part of what a step is.
"""

import json
import time
from pathlib import Path
from typing import Any

from llama_jax import __version__
from llama_jax.errors import InputError
from llama_jax.json_file import read_json
from llama_jax.whole_file import remove_leftovers, write_lines
from train.output_folder import check_output_folder
from train.rounds.given_files import check_given_files
from train.rounds.plan import PlannedStep

STEPS_FILE = "steps.json"


class DoneSteps:
    """The steps that are done in the folder `output`.

    Raises `InputError` if the folder holds something else, or its file cannot be read.
    """

    def __init__(self, output: Path):
        check_output_folder(output)
        self._path = output / STEPS_FILE
        self._records: list[dict[str, Any]] = []
        if self._path.is_file():
            self._records = _records(self._path)
        elif output.is_dir():
            found = sorted(path.name for path in output.iterdir() if not path.name.startswith("."))
            if found:
                raise InputError(
                    f"{output}: holds {found[0]} and no rounds (no {STEPS_FILE}); name another "
                    "folder"
                )

    def __len__(self) -> int:
        return len(self._records)

    def check(self, steps: list[PlannedStep]) -> None:
        """Raises `InputError` that names the first step which was another when it was done, or read
        something else."""
        for i in range(len(self._records)):
            record = self._records[i]
            place, line = record["step"], record["command"]
            if i >= len(steps):
                raise InputError(
                    f"{place}: is done, and is no step of this config; name another OUTPUT, or "
                    "change the config back"
                )
            if (place, line) != (steps[i].place, steps[i].identity):
                now = f"{steps[i].place}: {steps[i].identity}"
                raise InputError(
                    f"{place}: was done as `{line}`, and the config now has `{now}`; name another "
                    "OUTPUT, or change the config back"
                )

        check_given_files({record["step"]: record["given"] for record in self._records})

    def add(self, done: PlannedStep, *, given: dict[str, str], seconds: float) -> None:
        """Notes that a step is done.

        Args:
          given: files that it read, see `given_files`.
          seconds: it took at its last try.
        """
        self._records.append(
            {
                "step": done.place,
                "command": done.identity,
                "given": given,
                "seconds": round(seconds, 1),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "llama_jax": __version__,
            }
        )
        self.write()

    def write(self) -> None:
        """Writes the file. To be called by who holds the folder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._path)
        write_lines(self._path, [json.dumps({"steps": self._records}, indent=2)])

    def seconds(self, place: str) -> float | None:
        """That a done step took."""
        found = [record["seconds"] for record in self._records if record["step"] == place]
        return found[0] if found else None


def _records(path: Path) -> list[dict[str, Any]]:
    records = read_json(path).get("steps")
    names = {"step": str, "command": str, "given": dict, "seconds": (int, float)}
    if not isinstance(records, list) or not all(
        isinstance(record, dict)
        and all(isinstance(record.get(name), kind) for name, kind in names.items())
        for record in records
    ):
        raise InputError(f"{path}: is no record of steps; name another OUTPUT")
    return records
