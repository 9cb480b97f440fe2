"""How busy an engine is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineUsage:
    """How busy an engine is, and what it has done so far.

    Attributes:
      waiting, running: rows.
      pages_used: that rows hold.
      pages_kept: that nobody holds, with the beginning of a prompt that may come again.
      num_pages: that there are.
      preemptions: how often a row lost its pages.
      shared_tokens: of prompts, found in pages that were there already.
      prompt_tokens: of prompts, computed.
      new_tokens: of answers; those computed again do not count.
      decode_steps: steps of all rows together.
    """

    waiting: int
    running: int
    pages_used: int
    pages_kept: int
    num_pages: int
    preemptions: int
    shared_tokens: int
    prompt_tokens: int
    new_tokens: int
    decode_steps: int
