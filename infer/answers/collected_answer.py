"""The deltas of one sample put together."""

from infer.answers.answer_delta import AnswerDelta, AnswerFinish, TextLogprob
from llama_jax.chat import ToolCall


class CollectedAnswer:
    """One sample's answer as far as it has come; the attributes are those of `AnswerDelta`."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TextLogprob] = []
        self.prompt_logprobs: tuple[TextLogprob | None, ...] | None = None
        self.tool_calls: tuple[ToolCall, ...] = ()
        self.num_new_tokens = 0
        self.finish_reason: AnswerFinish | None = None
        self.stop: str | int | None = None
        self.error: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def add(self, delta: AnswerDelta) -> None:
        """Takes the next delta of this sample."""
        assert self.finish_reason is None, "a delta after the last"
        self._texts.append(delta.text)
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = delta.prompt_logprobs
        self.tool_calls = delta.tool_calls
        self.num_new_tokens = delta.num_new_tokens
        self.finish_reason = delta.finish_reason
        self.stop = delta.stop
        self.error = delta.error

    def as_delta(self, *, answer_id: int, index: int) -> AnswerDelta:
        """All of it as one delta."""
        return AnswerDelta(
            answer_id,
            index,
            self.text,
            tuple(self.tokens),
            tuple(self.logprobs),
            prompt_logprobs=self.prompt_logprobs,
            tool_calls=self.tool_calls,
            num_new_tokens=self.num_new_tokens,
            finish_reason=self.finish_reason,
            stop=self.stop,
            error=self.error,
        )
