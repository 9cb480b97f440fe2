"""The response to a request that does not stream."""

from typing import Any

from infer.answers import AnswerDelta
from infer.protocol.parsed_request import ParsedRequest


class WholeResponse:
    """Collects the deltas of a request's answers and writes them as OpenAI's object."""

    def __init__(self, request: ParsedRequest, *, response_id: str, created: int) -> None:
        """
        Args:
          response_id: the response's; ids of tool calls are made of it.
          created: seconds since 1970.
        """
        ...

    @property
    def is_finished(self) -> bool:
        """Whether every sample of every prompt is."""
        ...

    @property
    def error(self) -> str | None:
        """The first sample's that failed; then there is no body to send."""
        ...

    def add(self, number: int, delta: AnswerDelta) -> None:
        """Takes what is new of `request.answers[number]`."""
        ...

    def body(self) -> dict[str, Any]:
        """`chat.completion` or `text_completion`; all samples are finished, none with an error."""
        ...
