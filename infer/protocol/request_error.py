"""The error of a request that cannot be answered as it stands."""

from llama_jax.errors import InputError


class RequestError(InputError):
    """One line that begins with the field at fault and says what to change.

    Attributes:
      param: the field, or None.
      code: OpenAI's code of the error, or None.
      status: HTTP's status.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ):
        super().__init__(message)
        self.param, self.code, self.status = param, code, status
