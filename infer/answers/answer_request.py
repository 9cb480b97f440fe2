"""What is asked for: a prompt, how to sample, when to stop, how many answers."""

from collections.abc import Callable
from dataclasses import dataclass

from infer.engine.request import MAX_LOGPROBS, Constraint
from infer.sampling import SamplingParameters
from llama_jax.errors import InputError


@dataclass(frozen=True)
class AnswerRequest:
    """A prompt and its answers.

    Attributes:
      prompt: ids, at least one.
      sampling: how tokens are chosen; sample i has the seed `(sampling.seed + i) mod 2^32`.
      max_new_tokens: of each sample, the stopping id included; 0 only with `num_prompt_logprobs`,
        to score the prompt.
      eos_ids: the checkpoint's ids that end an answer; empty to go on to the limit.
      n: samples.
      min_new_tokens: before so many no answer stops, at an id or at a stop string.
      stop_strings: the answer is cut where one of them would begin.
      stop_ids: ids that end an answer besides `eos_ids`, reported as `AnswerDelta.stop`.
      include_stop: leave what stopped the answer in its text (a special token's text only if
        `skip_special` is off).
      skip_special: special tokens have no text.
      num_logprobs: None for none; else the log-probability of each token of the text and of so many
        likeliest ones, at most `MAX_LOGPROBS`.
      num_prompt_logprobs: the same for the prompt.
      constraint: makes the grammar that a sample obeys.
      parse_tools: look for tool calls; text that may be one is held back until that is clear.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParameters
    max_new_tokens: int
    eos_ids: frozenset[int]
    n: int = 1
    min_new_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    skip_special: bool = True
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    constraint: Callable[[], Constraint] | None = None
    parse_tools: bool = False

    def __post_init__(self):
        if not self.prompt:
            raise InputError("prompt: is empty; give at least one token")
        least = 1 if self.num_prompt_logprobs is None else 0
        if self.max_new_tokens < least:
            raise InputError(f"max_new_tokens: must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise InputError(
                f"min_new_tokens: must be from 0 to max_new_tokens, not {self.min_new_tokens}"
            )
        if self.n < 1:
            raise InputError(f"n: must be at least 1, not {self.n}")
        if not all(self.stop_strings):
            raise InputError("stop_strings: an empty text stops every answer before it begins")
        for name in ("num_logprobs", "num_prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise InputError(f"{name}: must be from 0 to {MAX_LOGPROBS}, not {value}")
