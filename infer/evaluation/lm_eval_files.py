"""Files of the installed package lm-eval, the harness, which carries the prompts and examples of
public evaluations.

They are read where they are installed: whose the texts are is not said there, so nothing of them is
copied. The package is data to us: it is not imported, and needs none of its dependencies.
"""

import importlib.util
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError

INSTALL = "pip install --no-deps lm-eval==0.4.13"


def tasks_folder() -> Path:
    """Where its tasks lie. Raises `InputError` if it is not installed."""
    found = importlib.util.find_spec("lm_eval")  # does not run the package
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package lm-eval is not installed; {INSTALL}")
    return Path(found.submodule_search_locations[0]) / "tasks"


def read_task_file(path: Path) -> dict[str, Any]:
    """What one of its YAML files says, without what it includes. Raises `InputError` if there is no
    such file."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Functions that a file names are not looked up."""

    Loader.add_multi_constructor("!function", lambda loader, suffix, node: None)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file in this version of lm-eval; {INSTALL}")
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def rendered(template: str, fields: dict[str, Any]) -> str:
    """A prompt out of one of its templates."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment().from_string(template).render(fields)


def not_as_expected(path: Path, error: Exception) -> InputError:
    """The error for a file that says something else than in the version that is read here."""
    return InputError(f"{path}: is not as in lm-eval 0.4.13 ({error!r}); {INSTALL}")
