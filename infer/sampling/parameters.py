"""How one row chooses its tokens: the numbers, their ranges, and what they mean.

Ranges are OpenAI's where OpenAI has the parameter, and vLLM's otherwise; a number outside is
refused, never clamped.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from llama_jax.errors import InputError

# Biases are a table of fixed width beside the logits, so that their number compiles no program of
# its own. OpenAI's own limit is 300 too.
MAX_LOGIT_BIASES = 300


def _check_ids(name: str, ids: Sequence[int]) -> None:
    if not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise InputError(f"{name}: a token id is a whole number from 0")
    if len(set(ids)) < len(ids):
        raise InputError(f"{name} has an id twice: give each once")


@dataclass(frozen=True)
class SamplingParameters:
    """How one row chooses its tokens.

    Attributes:
      temperature: divides the logits; 0 means the most likely token, always.
      top_p: the nucleus, in (0, 1]; 1 keeps everything.
      top_k: how many tokens to keep; 0 keeps everything.
      seed: 0 <= seed < 2^32.
      min_p: keeps tokens at least this many times as likely as the likeliest, in [0, 1]; 0 keeps
        everything.
      repetition_penalty: divides positive logits, and multiplies negative ones, of the ids in the
        prompt and in the answer so far, in [0.01, 100]; 1 does nothing.
      presence_penalty: subtracted from the logit of each id in the answer so far, in [-2, 2].
      frequency_penalty: the same, times how often the id is in the answer so far, in [-2, 2].
      logit_bias: pairs of an id and what to add to its logit, in [-100, 100]; at most 300 pairs.
      allowed_ids: the only ids that may be chosen; None allows all.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_ids: tuple[int, ...] | None = None

    def __post_init__(self):
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be over 0 and at most 1, not {self.top_p}")
        if not 0 <= self.top_k < 2**31 or self.top_k != int(self.top_k):
            raise InputError(f"top_k must be a whole number, 0 for no limit, not {self.top_k}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be from 0 to 2^32 - 1, not {self.seed}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be from 0 to 1, not {self.min_p}")
        # Beyond it float32 logits could overflow, and an infinite logit is no probability.
        if not 0.01 <= self.repetition_penalty <= 100:
            raise InputError(
                f"repetition_penalty must be from 0.01 to 100, not {self.repetition_penalty}"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise InputError(f"{name} must be from -2 to 2, not {getattr(self, name)}")
        self._check_logit_bias()
        if self.allowed_ids is not None:
            _check_ids("allowed_ids", self.allowed_ids)
            if not self.allowed_ids:
                raise InputError("allowed_ids is empty, so nothing could be chosen: leave it out")

    def _check_logit_bias(self):
        ids = [token for token, _ in self.logit_bias]
        _check_ids("logit_bias", ids)
        if len(ids) > MAX_LOGIT_BIASES:
            raise InputError(
                f"logit_bias has {len(ids)} entries; the most is {MAX_LOGIT_BIASES} (to choose "
                "among few ids, use allowed_ids)"
            )
        for token, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise InputError(f"logit_bias of id {token} must be from -100 to 100, not {bias}")

    @property
    def has_penalties(self) -> bool:
        """Whether a choice depends on which ids came before."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0)

    def __str__(self) -> str:
        """For a status line: what is always said, and the rest if it does something."""
        said = [f"temperature {self.temperature}, top_p {self.top_p}, top_k {self.top_k}"]
        if self.temperature == 0:
            said = ["greedy"]
        elif self.min_p:
            said.append(f"min_p {self.min_p}")
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            if getattr(self, name) != getattr(type(self), name):
                said.append(f"{name} {getattr(self, name)}")
        if self.logit_bias:
            said.append(f"logit_bias of {len(self.logit_bias)} ids")
        if self.allowed_ids is not None:
            said.append(f"{len(self.allowed_ids)} allowed_ids")
        return ", ".join(said)


GREEDY = SamplingParameters(temperature=0.0)


def override_sampling(
    defaults: SamplingParameters,
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    seed: int,
) -> SamplingParameters:
    """A checkpoint's defaults with what the user asked for instead; None is not asked for."""
    asked = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    asked = {name: value for name, value in asked.items() if value is not None}
    parameters = dataclasses.replace(defaults, **asked, seed=seed)
    if parameters.temperature == 0 and asked.keys() & {"top_p", "top_k"}:
        raise InputError("top_p and top_k do nothing at temperature 0: add a temperature")
    return parameters
