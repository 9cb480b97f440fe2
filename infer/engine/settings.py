"""The sizes that an engine is built with: they fix its executables and its memory."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from infer.sampling import MAX_LOGPROBS, SamplingMode
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError

MAX_DRAFTS = 16
GREEDY_ONLY = SamplingMode(random=False, top_k=False, top_p=False)
SAMPLED = SamplingMode(random=True, top_k=True, top_p=True, min_p=True)
ADJUSTED = dataclasses.replace(SAMPLED, penalties=True, bias=True, mask=True)
EVERYTHING = dataclasses.replace(ADJUSTED, num_logprobs=MAX_LOGPROBS)


@dataclass(frozen=True)
class Speculation:
    """How next tokens are guessed, to read several at once.

    Attributes:
      num_drafts: guesses a step.
      draft_config: of the smaller model that guesses; None looks back in the row itself.
    """

    num_drafts: int
    draft_config: ModelConfig | None = None

    def __post_init__(self):
        if not 1 <= self.num_drafts <= MAX_DRAFTS:
            raise InputError(f"drafts: must be from 1 to {MAX_DRAFTS}, not {self.num_drafts}")


@dataclass(frozen=True)
class EngineSettings:
    """Attributes:
    row_buckets: numbers of rows that decode programs are compiled for, ascending. The last is how
      many rows are answered at once; a call takes the smallest that holds the rows there are.
    max_length: longest row in tokens, prompt and answer together; a multiple of `page_size`.
    page_size: tokens a page.
    num_pages: pages in memory; a page holds its tokens' keys and values in every layer.
    prefill_tokens: tokens of prompts that one call computes, padding included.
    prefill_lengths: the lengths of chunks that prompts are cut into, ascending; each divides
      `prefill_tokens`, so that every prefill multiplies matrices of one shape. A prompt is cut at
      multiples of the last, and its rest takes the smallest that holds it.
    prefill_calls: prefill calls between two decode calls; more answer sooner those who wait, fewer
      keep the others flowing.
    decode_steps: tokens a row between two visits of the host.
    cache_dtype: of keys and values; int8 and float8_e4m3fn make quantised pages.
    prefix_sharing: whether prompts that begin alike share pages.
    max_stop_ids: ids that can end a row.
    modes: what sampling is compiled for, each in every bucket of rows; a call takes the first that
      covers its rows, so the cheap ones come first.
    prompt_logprobs: whether log-probabilities of prompts can be asked for.
    speculation: how next tokens are guessed; None guesses none. Rows with penalties or grammars,
      whose next choice depends on the last, are decoded without.
    """

    row_buckets: tuple[int, ...]
    max_length: int
    page_size: int
    num_pages: int
    prefill_tokens: int = 512
    prefill_lengths: tuple[int, ...] = (32, 128, 512)
    prefill_calls: int = 64
    decode_steps: int = 16
    cache_dtype: Any = None
    prefix_sharing: bool = True
    max_stop_ids: int = 16
    modes: tuple[SamplingMode, ...] = (GREEDY_ONLY, SAMPLED, EVERYTHING)
    prompt_logprobs: bool = False
    speculation: Speculation | None = None

    def __post_init__(self):
        for name in ("row_buckets", "prefill_lengths"):
            sizes = getattr(self, name)
            if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
                raise InputError(f"{name}: must be positive and ascend, not {sizes}")
        for name in ("max_length", "page_size", "num_pages", "prefill_calls", "decode_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if self.max_length % self.page_size:
            raise InputError(
                f"max_length: must be a multiple of page_size {self.page_size}, not "
                f"{self.max_length}"
            )
        if bad := [size for size in self.prefill_lengths if self.prefill_tokens % size]:
            raise InputError(
                f"prefill_lengths: must divide prefill_tokens {self.prefill_tokens}, not {bad}"
            )

    @property
    def num_drafts(self) -> int:
        """Guesses of a step."""
        return self.speculation.num_drafts if self.speculation else 0

    @property
    def num_rows(self) -> int:
        """Rows answered at once."""
        return self.row_buckets[-1]

    @property
    def pages_per_row(self) -> int:
        """Entries of a row's page table."""
        return self.max_length // self.page_size

    def pages_for(self, num_tokens: int) -> int:
        """Pages that so many tokens of a row take."""
        return math.ceil(num_tokens / self.page_size)

    def chunk_length(self, num_tokens: int) -> int:
        """The compiled length for the first chunk of `num_tokens` that are still to be computed."""
        longest = self.prefill_lengths[-1]
        return next((size for size in self.prefill_lengths if size >= num_tokens), longest)
