"""OpenAI's /v1/completions."""

from collections.abc import Mapping
from typing import Any

from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.served_model import ServedModel


def parse_completion(
    body: Mapping[str, Any],
    model: ServedModel,
    *,
    default_seed: int,
    default_max_tokens: int | None = None,
) -> ParsedRequest:
    """What the body of a completion request asks for.

    Args:
      body: the JSON object.
      default_seed: for a request that names none; 0 <= seed < 2^32.
      default_max_tokens: for a request that says nothing; None for OpenAI's 16.

    Raises:
      RequestError: naming the field and what to change.
    """
    ...
