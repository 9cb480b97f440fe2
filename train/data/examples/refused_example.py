"""Why a line of dialogs or preferences makes no example: what to count it as, and what to read."""

from collections.abc import Iterator
from contextlib import contextmanager

from llama_jax.errors import InputError


class RefusedExample(InputError):
    """A line that is left out with `--on-error skip`, and otherwise ends the work.

    Attributes:
      reason: what it is counted as in the manifest, such as `role order`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def refused_for(reason: str) -> Iterator[None]:
    """Makes every `InputError` of the context one that is counted as `reason`."""
    try:
        yield
    except RefusedExample:
        raise
    except InputError as error:
        raise RefusedExample(reason, str(error)) from error
