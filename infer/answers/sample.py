"""One sample of a request: the engine's progress with its row, told in text."""

import dataclasses

from infer.answers.answer_delta import AnswerDelta, AnswerFinish
from infer.answers.answer_request import AnswerRequest
from infer.answers.answer_text import AnswerText
from infer.answers.token_texts import TokenTexts
from infer.engine.request import Progress, Request
from llama_jax.tokenizers.interface import Tokenizer


class Sample:
    """Sample `index` of a request.

    Attributes:
      engine_request: what the engine is asked for it.
    """

    def __init__(self, request: AnswerRequest, index: int, tokenizer: Tokenizer) -> None:
        self.engine_request = _engine_request(request, index)
        self._request = request
        self._index = index
        self._text = AnswerText(request, tokenizer)

    def advance(self, answer_id: int, progress: Progress, texts: TokenTexts) -> AnswerDelta:
        """What is new, the prompt's log-probabilities aside.

        It may end the sample where the engine goes on: then a stop string was found.
        """
        if progress.finish_reason == "error":
            # Text that was held back is lost with it.
            return AnswerDelta(
                answer_id,
                self._index,
                num_new_tokens=self._text.num_tokens,
                finish_reason="error",
                error=progress.error,
            )
        text, scores_only = self._text, self._request.max_new_tokens == 0
        # The engine chooses one token at least; who only wants the prompt scored is not shown it.
        tokens = () if scores_only else progress.tokens
        logprobs = progress.logprobs if tokens and progress.logprobs else (None,) * len(tokens)
        for token, logprob in zip(tokens, logprobs, strict=True):
            text.push(token, logprob)
            if text.found_stop is not None:
                break
        finish: AnswerFinish | None = None if text.found_stop is None else "stop"
        stop_token = None
        if finish is None and progress.finish_reason is not None:
            finish = "length" if scores_only else progress.finish_reason
            stop_token = None if scores_only else progress.stop_token
        num_new_tokens = text.num_tokens + (stop_token is not None)
        if finish is None:
            shown = text.shown()
        else:
            shown = text.finish(finish, stop_token=stop_token)
        stop: str | int | None = stop_token if stop_token in self._request.stop_ids else None
        if text.found_stop is not None:
            finish, stop = "stop", text.found_stop.string
        return AnswerDelta(
            answer_id,
            self._index,
            shown.text,
            shown.tokens,
            tuple(texts.readable(logprob) for logprob in shown.logprobs),
            tool_calls=shown.tool_calls,
            num_new_tokens=num_new_tokens,
            finish_reason="tool_calls" if shown.tool_calls else finish,
            stop=stop,
        )


def _engine_request(request: AnswerRequest, index: int) -> Request:
    """What the engine is asked for sample `index`. The prompt is scored once, for the first."""
    seed = (request.sampling.seed + index) % 2**32
    return Request(
        prompt=request.prompt,
        sampling=dataclasses.replace(request.sampling, seed=seed),
        max_new_tokens=max(request.max_new_tokens, 1),
        stop_ids=request.eos_ids | request.stop_ids,
        min_new_tokens=request.min_new_tokens,
        num_logprobs=request.num_logprobs,
        num_prompt_logprobs=request.num_prompt_logprobs if index == 0 else None,
        constraint=request.constraint,
    )
