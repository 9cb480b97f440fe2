"""The response to a request that does not stream."""

from typing import Any

from infer.answers import AnswerDelta, CollectedAnswer, LikelyToken
from infer.protocol.logprob_objects import CompletionLogprobs, chat_logprobs, prompt_logprobs
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.response_objects import (
    WITHHELD,
    choice_index,
    envelope,
    tool_call_objects,
    usage,
)


class WholeResponse:
    """Collects the deltas of a request's answers and writes them as OpenAI's object.

    As vLLM's, a choice says in `stop_reason` which stop string or id of `stop_token_ids` ended it,
    and where `prompt_logprobs` were asked for, they are there.
    """

    def __init__(self, request: ParsedRequest, *, response_id: str, created: int) -> None:
        """
        Args:
          response_id: the response's; ids of tool calls are made of it.
          created: seconds since 1970.
        """
        self._request = request
        self._response_id = response_id
        self._created = created
        self._samples = [[CollectedAnswer() for _ in range(a.n)] for a in request.answers]

    @property
    def is_finished(self) -> bool:
        """Whether every sample of every prompt is."""
        return all(sample.finish_reason for samples in self._samples for sample in samples)

    @property
    def error(self) -> str | None:
        """The first sample's that failed; then there is no body to send."""
        failed = (
            sample.error or "the answer failed"
            for samples in self._samples
            for sample in samples
            if sample.finish_reason == "error"
        )
        return next(failed, None)

    def add(self, number: int, delta: AnswerDelta) -> None:
        """Takes what is new of `request.answers[number]`."""
        self._samples[number][delta.index].add(delta)

    def body(self) -> dict[str, Any]:
        """`chat.completion` or `text_completion`; all samples are finished, none with an error."""
        assert self.is_finished and self.error is None
        request, is_chat = self._request, self._request.kind == "chat"
        kind = "chat.completion" if is_chat else "text_completion"
        choose = self._chat_choice if is_chat else self._completion_choice
        body = envelope(request, kind, response_id=self._response_id, created=self._created)
        body["choices"] = [
            choose(number, index, sample)
            for number, samples in enumerate(self._samples)
            for index, sample in enumerate(samples)
        ]
        num_new = sum(sample.num_new_tokens for samples in self._samples for sample in samples)
        body["usage"] = usage(request, num_new)
        if is_chat and (scored := self._samples[0][0].prompt_logprobs) is not None:
            body["prompt_logprobs"] = prompt_logprobs(scored)
        return body

    def _chat_choice(self, number: int, index: int, sample: CollectedAnswer) -> dict[str, Any]:
        choice = choice_index(self._request, number, index)
        is_withheld = sample.finish_reason == "content_filter"
        message: dict[str, Any] = {
            "role": "assistant",
            # A message that only calls tools has no content, nor has one that was withheld.
            "content": sample.text or (None if sample.tool_calls or is_withheld else ""),
            "refusal": WITHHELD if is_withheld else None,
        }
        if sample.tool_calls:
            message["tool_calls"] = tool_call_objects(
                sample.tool_calls, response_id=self._response_id, choice=choice
            )
        has_logprobs = self._request.answers[number].num_logprobs is not None
        return {
            "index": choice,
            "message": message,
            "logprobs": chat_logprobs(sample.logprobs) if has_logprobs else None,
            "finish_reason": sample.finish_reason,
            "stop_reason": sample.stop,
        }

    def _completion_choice(
        self, number: int, index: int, sample: CollectedAnswer
    ) -> dict[str, Any]:
        request = self._request
        text, logprobs, first = sample.text, list(sample.logprobs), None
        has_logprobs = request.answers[number].num_logprobs is not None
        scored = sample.prompt_logprobs
        if request.echo is not None:
            text = request.echo[number].text + text
            if has_logprobs and scored is not None:
                first = first_token(request, number)
                logprobs, scored = [*scored[1:], *logprobs], None
        lists = None
        if has_logprobs:
            lists = CompletionLogprobs(request.textless_ids).part(text, logprobs, first=first)
        choice = {
            "index": choice_index(request, number, index),
            "text": text,
            "logprobs": lists,
            "finish_reason": sample.finish_reason,
            "stop_reason": sample.stop,
        }
        if scored is not None:
            choice["prompt_logprobs"] = prompt_logprobs(scored)
        return choice


def first_token(request: ParsedRequest, number: int) -> LikelyToken:
    """The first token of an echoed prompt."""
    assert request.echo is not None
    token_bytes = request.echo[number].first_bytes
    text = token_bytes.decode(errors="replace")
    return LikelyToken(request.answers[number].prompt[0], text, token_bytes, 0.0)
