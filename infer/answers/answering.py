"""`Answering`: requests in ids to answers in text, over any engine of ids."""

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol

from infer.answers.answer_delta import AnswerDelta, TextLogprob
from infer.answers.answer_request import AnswerRequest
from infer.answers.sample import Sample
from infer.answers.token_texts import TokenTexts
from infer.engine.request import Progress, Request
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer


class TokenEngine(Protocol):
    """What `Answering` needs of `infer.engine.Engine`: one thread, nothing waits."""

    @property
    def is_idle(self) -> bool: ...

    def add(self, request: Request) -> int: ...

    def cancel(self, request_id: int) -> None: ...

    def step(self) -> list[Progress]: ...


@dataclass
class _Answer:
    """A request being answered.

    Attributes:
      samples: those that go on, by the engine's id of their row.
      prompt_logprobs: once they have come.
      waiting: deltas that came before them.
      begun: samples of which a delta has gone out.
    """

    id: int
    request: AnswerRequest
    samples: dict[int, Sample] = field(default_factory=dict)
    prompt_logprobs: tuple[TextLogprob | None, ...] | None = None
    waiting: list[AnswerDelta] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)

    @property
    def waits_for_prompt(self) -> bool:
        return self.request.num_prompt_logprobs is not None and self.prompt_logprobs is None


class Answering:
    """Answers requests with an engine, in text. Of one thread, as the engine is."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._texts = TokenTexts(tokenizer)
        self._answers: dict[int, _Answer] = {}
        self._answer_of_row: dict[int, _Answer] = {}
        self._next_id = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to answer."""
        return not self._answers and self._engine.is_idle

    def add(self, request: AnswerRequest) -> int:
        """Queues all samples of `request`; the id under which their deltas will come.

        Raises:
          InputError: it can never be answered (see `Engine.add`); nothing of it is queued then.
        """
        answer = _Answer(self._next_id, request)
        try:
            for index in range(request.n):
                sample = Sample(request, index, self._tokenizer)
                answer.samples[self._engine.add(sample.engine_request)] = sample
        except InputError:
            for row in answer.samples:
                self._engine.cancel(row)
            raise
        self._next_id += 1
        self._answers[answer.id] = answer
        self._answer_of_row |= dict.fromkeys(answer.samples, answer)
        return answer.id

    def cancel(self, answer_id: int) -> None:
        """Drops all samples of a request; no delta of it comes any more. An id that is finished or
        unknown is left alone: the client may go in the moment the answer ends."""
        answer = self._answers.get(answer_id)
        if answer is not None:
            self._cancel_rows(answer)

    def step(self) -> list[AnswerDelta]:
        """Lets the engine work for a while; what is new, in the order of the samples' progress."""
        deltas: list[AnswerDelta] = []
        for progress in self._engine.step():
            answer = self._answer_of_row.get(progress.request_id)
            if answer is not None:
                deltas += self._advance(answer, progress)
        return deltas

    def _advance(self, answer: _Answer, progress: Progress) -> list[AnswerDelta]:
        """What `progress` of one row makes of its answer."""
        row = progress.request_id
        if progress.prompt_logprobs is not None:
            answer.prompt_logprobs = tuple(
                None if logprob is None else self._texts.readable(logprob)
                for logprob in progress.prompt_logprobs
            )
        delta = answer.samples[row].advance(answer.id, progress, self._texts)
        if delta.finish_reason == "error" and answer.waits_for_prompt:
            # They belong to every sample, so none can be complete; none has said anything yet.
            self._cancel_rows(answer)
            return [dataclasses.replace(delta, index=i) for i in range(answer.request.n)]
        if delta.finish_reason is not None:
            if progress.finish_reason is None:
                self._engine.cancel(row)
            self._forget_row(answer, row)
        if delta.text or delta.tokens or delta.finish_reason or progress.prompt_logprobs:
            answer.waiting.append(delta)
        if answer.waits_for_prompt:
            return []
        ready, answer.waiting = answer.waiting, []
        return [self._with_prompt_logprobs(answer, delta) for delta in ready]

    def _with_prompt_logprobs(self, answer: _Answer, delta: AnswerDelta) -> AnswerDelta:
        if delta.index in answer.begun:
            return delta
        answer.begun.add(delta.index)
        return dataclasses.replace(delta, prompt_logprobs=answer.prompt_logprobs)

    def _cancel_rows(self, answer: _Answer) -> None:
        for row in list(answer.samples):
            self._engine.cancel(row)
            self._forget_row(answer, row)

    def _forget_row(self, answer: _Answer, row: int) -> None:
        del answer.samples[row], self._answer_of_row[row]
        if not answer.samples:
            del self._answers[answer.id]
