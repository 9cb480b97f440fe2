"""The response to a request that streams: chunk after chunk."""

from typing import Any

from infer.answers import AnswerDelta
from infer.protocol.parsed_request import ParsedRequest


class StreamedResponse:
    """Turns the deltas of a request's answers into OpenAI's chunks, each a JSON object."""

    def __init__(self, request: ParsedRequest, *, response_id: str, created: int) -> None:
        """
        Args:
          response_id: the same for all chunks; ids of tool calls are made of it.
          created: seconds since 1970.
        """
        ...

    @property
    def is_finished(self) -> bool:
        """Whether every sample of every prompt is."""
        ...

    def chunks(self, number: int, delta: AnswerDelta) -> list[dict[str, Any]]:
        """Chunks for what is new of `request.answers[number]`; often one, sometimes none.

        A sample that failed becomes an error object, after which nothing should be sent.
        """
        ...

    def last_chunks(self) -> list[dict[str, Any]]:
        """What follows when all is finished: the usage, if it was asked for."""
        ...
