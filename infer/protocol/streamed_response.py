"""The response to a request that streams: chunk after chunk."""

from typing import Any

from infer.answers import AnswerDelta
from infer.protocol.error_object import error_object
from infer.protocol.logprob_objects import CompletionLogprobs, chat_logprobs
from infer.protocol.parsed_request import ParsedRequest
from infer.protocol.response_objects import (
    WITHHELD,
    choice_index,
    envelope,
    tool_call_objects,
    usage,
)
from infer.protocol.whole_response import first_token


class StreamedResponse:
    """Turns the deltas of a request's answers into OpenAI's chunks, each a JSON object.

    A chat choice begins with its role, goes on with content or all its tool calls, and ends with
    its finish reason alone; log-probabilities go with the chunk of their tokens.
    """

    def __init__(self, request: ParsedRequest, *, response_id: str, created: int) -> None:
        """
        Args:
          response_id: the same for all chunks; ids of tool calls are made of it.
          created: seconds since 1970.
        """
        self._request = request
        self._response_id = response_id
        num_choices = sum(answer.n for answer in request.answers)
        kind = "chat.completion.chunk" if request.kind == "chat" else "text_completion"
        self._envelope = envelope(request, kind, response_id=response_id, created=created)
        self._logprobs = [CompletionLogprobs(request.textless_ids) for _ in range(num_choices)]
        self._num_new_tokens = [0] * num_choices
        self._has_begun = [False] * num_choices
        self._num_going_on = num_choices

    @property
    def is_finished(self) -> bool:
        """Whether every sample of every prompt is."""
        return self._num_going_on == 0

    def chunks(self, number: int, delta: AnswerDelta) -> list[dict[str, Any]]:
        """Chunks for what is new of `request.answers[number]`; often one, sometimes none.

        A sample that failed becomes an error object, after which nothing should be sent.
        """
        index = choice_index(self._request, number, delta.index)
        self._num_new_tokens[index] = delta.num_new_tokens
        self._num_going_on -= delta.finish_reason is not None
        if delta.finish_reason == "error":
            return [error_object(delta.error or "the answer failed", status=500)]
        make = self._chat_choices if self._request.kind == "chat" else self._completion_choices
        choices = make(number, index, delta)
        self._has_begun[index] = True
        return [self._chunk([choice]) for choice in choices]

    def last_chunks(self) -> list[dict[str, Any]]:
        """What follows when all is finished: the usage, if it was asked for."""
        if not self._request.include_usage:
            return []
        chunk = self._chunk([])
        chunk["usage"] = usage(self._request, sum(self._num_new_tokens))
        return [chunk]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._envelope, "choices": choices}
        if self._request.include_usage:
            # Null in all chunks but the last, where the client asks for it.
            chunk["usage"] = None
        return chunk

    def _chat_choices(self, number: int, index: int, delta: AnswerDelta) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        if not self._has_begun[index]:
            parts.append({"role": "assistant", "content": ""})
        num_before = len(parts)
        if delta.text or (delta.logprobs and not delta.tool_calls):
            parts.append({"content": delta.text})
        if delta.tool_calls:
            calls = tool_call_objects(delta.tool_calls, response_id=self._response_id, choice=index)
            parts.append({"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})
        if delta.finish_reason == "content_filter":
            parts.append({"refusal": WITHHELD})
        choices = [_chat_choice(index, part) for part in parts]
        if delta.logprobs:
            choices[num_before]["logprobs"] = chat_logprobs(delta.logprobs)
        if delta.finish_reason is not None:
            last = _chat_choice(index, {})
            choices.append(last | {"finish_reason": delta.finish_reason, "stop_reason": delta.stop})
        return choices

    def _completion_choices(
        self, number: int, index: int, delta: AnswerDelta
    ) -> list[dict[str, Any]]:
        request = self._request
        text, logprobs, first = delta.text, delta.logprobs, None
        if request.echo is not None and not self._has_begun[index]:
            text = request.echo[number].text + text
            if delta.prompt_logprobs is not None:
                first = first_token(request, number)
                logprobs = (*delta.prompt_logprobs[1:], *logprobs)
        if not (text or logprobs or first or delta.finish_reason):
            return []
        lists = None
        if request.answers[number].num_logprobs is not None:
            lists = self._logprobs[index].part(text, logprobs, first=first)
        choice = {
            "index": index,
            "text": text,
            "logprobs": lists,
            "finish_reason": delta.finish_reason,
        }
        if delta.finish_reason is not None:
            choice["stop_reason"] = delta.stop
        return [choice]


def _chat_choice(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
