"""Asks Llama Guard about a dialog, and reads what it says: a verdict and how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infer.answers import AnswerRequest, CollectedAnswer, TextLogprob
from infer.loaded_model import LoadedModel
from infer.sampling import GREEDY, MAX_LOGPROBS, SamplingMode
from llama_jax.errors import InputError
from llama_jax.safety import LlamaGuard, Turn, Verdict, parse_verdict
from llama_jax.tokenizers.token_bytes import TokenBytes

JUDGING = SamplingMode(random=False, top_k=False, top_p=False, num_logprobs=MAX_LOGPROBS)
"""The one way of sampling that a guard's engine needs."""

# Room beyond the longest proper verdict: one that is not proper should be seen to be so.
_MARGIN = 8


@dataclass(frozen=True)
class Judgement:
    """Attributes:
    verdict: what counts.
    score: the probability of `unsafe` where the model begins its verdict, or, if that is not among
      the likeliest `MAX_LOGPROBS` tokens there, of the last of these, which it cannot exceed. None
      if the model said nothing.
    """

    verdict: Verdict
    score: float | None

    def fields(self) -> dict[str, Any]:
        """As JSON; `problem` and `excluded` only where there are some."""
        verdict = self.verdict
        fields: dict[str, Any] = {
            "verdict": "safe" if verdict.is_safe else "unsafe",
            "categories": list(verdict.categories),
            "score": None if self.score is None else float(f"{self.score:.6g}"),
        }
        if verdict.excluded:
            fields["excluded"] = list(verdict.excluded)
        if verdict.problem is not None:
            fields["problem"] = verdict.problem
        return fields


class Judge:
    """One guard model with its prompt.

    Args:
      max_length: of prompt and verdict together, in tokens.
      model: what an error calls the guard: its path or repository id.

    Raises `InputError` if the model's tokenizer is not Llama 3's.
    """

    def __init__(self, guard: LlamaGuard, loaded: LoadedModel, *, max_length: int, model: str):
        self._guard = guard
        self._tokenizer = loaded.tokenizer
        self._max_length = max_length
        try:
            guard.encode([Turn("user", "Hi")], loaded.tokenizer)
        except InputError as error:
            raise InputError(f"{model}: {error}") from error
        special = loaded.tokenizer.special_tokens
        ends = {special[name] for name in ("<|eot_id|>", "<|end_of_text|>") if name in special}
        self._eos_ids = loaded.eos_ids | ends
        self._max_new_tokens = len(self._tokenizer.encode(guard.longest_verdict())) + _MARGIN
        first = self._tokenizer.encode("unsafe")[0]
        self._unsafe = TokenBytes(self._tokenizer).of(first).strip()

    def request(self, turns: Sequence[Turn]) -> AnswerRequest:
        """What the engine is asked about the last of `turns`. Raises `InputError` if the dialog is
        too long: a part of it is never judged for the whole."""
        prompt = self._guard.encode(turns, self._tokenizer)
        room = self._max_length - self._max_new_tokens
        if len(prompt) > room:
            raise InputError(
                f"messages: make a prompt of {len(prompt)} tokens for the guard, which reads at "
                f"most {room} beside its verdict; shorten the dialog or raise the guard's length"
            )
        return AnswerRequest(
            prompt=tuple(prompt),
            sampling=GREEDY,
            max_new_tokens=self._max_new_tokens,
            eos_ids=self._eos_ids,
            num_logprobs=MAX_LOGPROBS,
        )

    def judgement(self, answer: CollectedAnswer) -> Judgement:
        """Of a finished answer to `request`, which did not fail."""
        is_whole = answer.finish_reason == "stop"
        verdict = parse_verdict(answer.text, self._guard.policy, is_whole=is_whole)
        return Judgement(verdict, unsafe_probability(answer.logprobs, self._unsafe))


def unsafe_probability(logprobs: Sequence[TextLogprob], unsafe: bytes) -> float | None:
    """See `Judgement.score`. The line breaks that the model may write first are not the verdict.

    Args:
      logprobs: of the answer's tokens, each with the likeliest at its place, likeliest first.
      unsafe: bytes of the token that `unsafe` begins with, without space.
    """
    for chosen in logprobs:
        if chosen.bytes.strip():
            found = [likely.logprob for likely in chosen.top if likely.bytes.strip() == unsafe]
            return min(1.0, sum(map(math.exp, found or [chosen.top[-1].logprob])))
    return None
