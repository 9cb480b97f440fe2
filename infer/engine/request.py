"""What the engine is asked and what it tells: token ids in, token ids out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from infer.sampling import MAX_LOGPROBS, SamplingParameters
from llama_jax.errors import InputError

FinishReason = Literal["stop", "length", "error"]


class Constraint(Protocol):
    """A grammar that one row obeys, token by token (`infer/constraints`)."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing but the end may follow."""
        ...

    def mask(self) -> np.ndarray:
        """uint32 `[ceil(V / 32)]`: bit i of word w is set where token `32 w + i` may come next."""
        ...

    def accept(self, token: int) -> None:
        """Takes note of the token that came."""
        ...


@dataclass(frozen=True)
class Request:
    """One row to be answered. Several samples of a prompt are several requests.

    Attributes:
      prompt: ids, at least one.
      sampling: how tokens are chosen, seed included.
      max_new_tokens: the row's limit.
      stop_ids: ids that end the row, end-of-text included; may be empty.
      min_new_tokens: before so many, no id of `stop_ids` is chosen.
      num_logprobs: None for none; else the log-probability of each new token and of so many
        likeliest ones, at most `MAX_LOGPROBS`.
      num_prompt_logprobs: the same for the tokens of the prompt.
      constraint: makes the grammar that the row obeys.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParameters
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    min_new_tokens: int = 0
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    constraint: Callable[[], Constraint] | None = None

    def __post_init__(self):
        if not self.prompt:
            raise InputError("the prompt is empty: give at least one token")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise InputError(
                f"min_new_tokens must be from 0 to max_new_tokens, not {self.min_new_tokens}"
            )
        for name in ("num_logprobs", "num_prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise InputError(f"{name} must be from 0 to {MAX_LOGPROBS}, not {value}")


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was, in the model's own distribution: temperature 1, nothing cut.

    Attributes:
      token: its id.
      logprob: natural logarithm of its probability.
      top: the likeliest tokens at its place and their log-probabilities, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Progress:
    """What is new about one request.

    Attributes:
      request_id: what `Engine.add` returned.
      tokens: new ids; an id that stopped the row is not among them.
      logprobs: one for each of `tokens`, if asked for.
      prompt_logprobs: one for each token of the prompt but the first (None), with the first
        progress of a request that asked for them.
      finish_reason: None while the row goes on.
      stop_token: the id of `stop_ids` that ended it.
      error: with the reason `error`, one line.
    """

    request_id: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_token: int | None = None
    error: str | None = None
