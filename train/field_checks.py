"""What a number of a run must be, said as one line that names its field."""

import math

from llama_jax.errors import InputError


def require(condition: bool, field: str, message: str) -> None:
    """Raises `InputError`, `field: message`, unless `condition` holds."""
    if not condition:
        raise InputError(f"{field}: {message}")


def at_least(value: float, least: float, field: str) -> None:
    """Raises `InputError` unless `value` is finite and `least` or more."""
    is_right = math.isfinite(value) and value >= least
    require(is_right, field, f"must be at least {least}, not {value}")


def positive(value: float, field: str) -> None:
    """Raises `InputError` unless `value` is finite and over 0."""
    require(math.isfinite(value) and value > 0, field, f"must be over 0, not {value}")


def divides(part: int, whole: int, part_field: str, whole_field: str) -> None:
    """Raises `InputError` unless `part` divides `whole`."""
    require(whole % part == 0, part_field, f"{part} does not divide {whole_field} {whole}")
