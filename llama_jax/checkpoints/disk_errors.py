"""Errors of the operating system, wherever tensorstore hides them."""

import os
import re


def as_os_error(error: BaseException, path: str | None = None) -> OSError | None:
    """What the operating system said to a writer, or None if `error` has another cause.

    tensorstore raises `ValueError` with the number in its text. The chain of causes is searched,
    as Orbax wraps what its threads raise.

    Args:
      path: named in the result, if given.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        code = re.search(r"\[os_error_code='(\d+)'\]", str(error))
        number = int(code[1]) if code else error.errno if isinstance(error, OSError) else None
        if number is not None:
            return OSError(number, os.strerror(number), *([path] if path else []))
        error = error.__cause__ or error.__context__
    return None
