"""What an operator may set of the server, checked once."""

import math
from dataclasses import dataclass

from llama_jax.errors import InputError


@dataclass(frozen=True)
class ServerSettings:
    """Attributes:
    model_names: what the one model answers to; the first is the name in answers.
    rows: answers that the engine writes at once.
    max_queue: answers that may wait beside them; one more is refused with 429.
    request_timeout: seconds that a request may take, waiting and the reading of its body
      included.
    drain_timeout: seconds that running answers get after SIGTERM.
    max_body_bytes: of a request.
    api_keys: any of them opens the server; none: it is open.
    cors_origins: pages of other origins that may call it, `*` for all.
    """

    model_names: tuple[str, ...]
    rows: int
    max_queue: int
    request_timeout: float
    drain_timeout: float
    max_body_bytes: int
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self):
        for name in self.model_names:
            if not name or not name.isprintable():
                raise InputError(f"--served-model-name must be printable text, not {name!r}")
        if self.max_queue < 0:
            raise InputError(f"--max-queue must be 0 or more, not {self.max_queue}")
        if not 0 < self.request_timeout < math.inf:
            raise InputError(
                f"--request-timeout must be a number of seconds above 0, not {self.request_timeout}"
            )
        if not 0 <= self.drain_timeout < math.inf:
            raise InputError(
                f"--drain-timeout must be a number of seconds, 0 or more, not {self.drain_timeout}"
            )
        if self.max_body_bytes < 1:
            raise InputError(f"--max-body-bytes must be at least 1, not {self.max_body_bytes}")
        for origin in self.cors_origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise InputError(
                    f"--cors-origin must be * or like https://example.org, not {origin!r}"
                )

    @property
    def capacity(self) -> int:
        """Answers that may be unfinished at once."""
        return self.rows + self.max_queue
