"""Llama Guard before and after the answers: what it calls unsafe is neither answered nor sent.

A prompt that is unsafe is refused: status 400 with the code `content_filter`. An answer is held
back until all of it has been judged, streamed or not; one that is unsafe ends with the finish
reason `content_filter`, its `stop_reason` names the categories, and nothing of it is sent: no text,
no tool call, no log-probability. What cannot be judged is not let through either.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from infer.answers import AnswerDelta, CollectedAnswer
from infer.guard.judge import Judge
from infer.protocol import ParsedRequest, RequestError, ServedModel
from infer.server.answer_stream import AnswerStream, NumberedDelta
from infer.server.engine_thread import EngineThread
from infer.server.http_error import HttpError
from infer.server.metrics import Metrics
from llama_jax.chat import Message
from llama_jax.errors import InputError
from llama_jax.safety import Verdict, guard_turns


@dataclass(frozen=True)
class ServerGuard:
    """The guard of a server, with an engine thread of its own. Lives on the event loop.

    Attributes:
      text_threads: where prompts are written and tokenised.
    """

    judge: Judge
    engine: EngineThread
    metrics: Metrics
    text_threads: Executor

    async def verdict(self, dialog: Sequence[Message]) -> Verdict:
        """On the last turn of `dialog`.

        Raises:
          RequestError: it is too long for the guard, or no dialog that it can judge.
          HttpError: the guard failed.
        """
        try:
            request = await asyncio.get_running_loop().run_in_executor(
                self.text_threads, lambda: self.judge.request(guard_turns(dialog))
            )
        except InputError as error:
            raise RequestError(f"{error} (by this server's guard)", param="messages") from error
        # One answer of a few tokens cannot fall behind.
        stream = await self.engine.submit([request], on_overflow=lambda: None)
        answer = CollectedAnswer()
        try:
            async for batch in stream.batches():
                for _, delta in batch:
                    answer.add(delta)
                if answer.finish_reason is not None:
                    break
        finally:
            stream.close()
        if answer.finish_reason == "error":
            raise HttpError(
                500, f"the guard could not judge: {answer.error}", code="guard", outcome="error"
            )
        return self.judge.judgement(answer).verdict


class GuardFilter:
    """The guard's part in one request.

    Args:
      model: that answers.
    """

    def __init__(self, guard: ServerGuard, request: ParsedRequest, model: ServedModel):
        self._guard = guard
        self._dialogs = _dialogs(request, model)

    async def check_prompts(self) -> None:
        """Judges what is asked. Raises `HttpError` if some of it is unsafe, and as
        `ServerGuard.verdict` does."""
        verdicts = await asyncio.gather(*map(self._guard.verdict, self._dialogs))
        for verdict in verdicts:
            if not verdict.is_safe:
                self._guard.metrics.filtered.labels("prompt").inc()
                named = f" ({', '.join(verdict.categories)})" if verdict.categories else ""
                raise HttpError(
                    400,
                    f"the prompt was refused by this server's guard{named}",
                    code="content_filter",
                    outcome="content_filter",
                )

    async def batches(self, answers: AnswerStream) -> AsyncGenerator[list[NumberedDelta], None]:
        """As `AnswerStream.batches`, but each sample comes in one piece once it has been judged."""
        held: dict[tuple[int, int], CollectedAnswer] = {}
        source = answers.batches()
        arriving = asyncio.ensure_future(anext(source))
        judging: set[asyncio.Future[NumberedDelta]] = set()
        try:
            while True:
                await asyncio.wait({arriving, *judging}, return_when=asyncio.FIRST_COMPLETED)
                ready = [task.result() for task in judging if task.done()]
                judging = {task for task in judging if not task.done()}
                if arriving.done():
                    for number, delta in arriving.result():
                        sample = held.setdefault((number, delta.index), CollectedAnswer())
                        sample.add(delta)
                        if delta.finish_reason == "error":
                            ready.append((number, delta))  # without text
                        elif delta.finish_reason is not None:
                            judging.add(asyncio.ensure_future(self._judged(number, delta, sample)))
                    arriving = asyncio.ensure_future(anext(source))
                if ready:
                    yield ready
        finally:
            for task in (arriving, *judging):
                task.cancel()
            await asyncio.gather(arriving, *judging, return_exceptions=True)

    async def _judged(
        self, number: int, last: AnswerDelta, sample: CollectedAnswer
    ) -> NumberedDelta:
        """The whole sample as one delta, or what there is instead."""
        names = {"answer_id": last.answer_id, "index": last.index}
        verdict = Verdict(True)
        if sample.text.strip() or sample.tool_calls:
            answer = Message("assistant", sample.text, sample.tool_calls)
            verdict = await self._guard.verdict([*self._dialogs[number], answer])
        if verdict.is_safe:
            return number, sample.as_delta(**names)
        self._guard.metrics.filtered.labels("answer").inc()
        return number, AnswerDelta(
            **names,
            prompt_logprobs=sample.prompt_logprobs,
            num_new_tokens=sample.num_new_tokens,
            finish_reason="content_filter",
            stop=",".join(verdict.categories) or None,
        )


def _dialogs(request: ParsedRequest, model: ServedModel) -> list[list[Message]]:
    """What each prompt says: a chat's messages; of a completion the text, as a user's message, with
    special tokens spelt out."""
    if request.kind == "chat":
        return [list(request.messages)]
    dialogs = []
    for answer in request.answers:
        ids = answer.prompt
        if ids[:1] == (model.tokenizer.bos_id,):
            ids = ids[1:]
        dialogs.append([Message("user", model.tokenizer.decode(ids))])
    return dialogs
