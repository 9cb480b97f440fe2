"""What is new about one sample of an answer."""

from dataclasses import dataclass
from typing import Literal

from llama_jax.chat import ToolCall

AnswerFinish = Literal["stop", "length", "tool_calls", "content_filter", "error"]


@dataclass(frozen=True)
class LikelyToken:
    """A token and how likely it was, in the model's own distribution.

    Attributes:
      token: its id.
      text: its text; U+FFFD where its bytes are no whole character.
      bytes: its bytes in UTF-8 text, all of them.
      logprob: natural logarithm of its probability.
    """

    token: int
    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class TextLogprob(LikelyToken):
    """The token that was chosen, and the likeliest ones at its place, likeliest first."""

    top: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True)
class AnswerDelta:
    """What is new about one sample.

    The texts of all deltas of a sample make its answer, and the tokens of all deltas are those with
    a part in that text, a skipped special token among them: a stopping id and tokens wholly behind
    the cut of a stop string are not there.

    Attributes:
      answer_id: what `Answering.add` returned.
      index: which sample, from 0.
      text: what follows the text so far.
      tokens: ids that `text` completes.
      logprobs: one for each of `tokens`, if asked for.
      prompt_logprobs: with the first delta of every sample, if asked for; None for the first token.
      tool_calls: with the last delta, all calls; of a tool call nothing is in `text`.
      num_new_tokens: computed for this sample so far, as far as they count: the stopping id and
        tokens behind the cut of a stop string are in it. vLLM counts so, and so the count never
        exceeds `max_new_tokens`; what the engine computed beyond the stop is not in it.
      finish_reason: None while the sample goes on.
      stop: what stopped it: a stop string, an id of `stop_ids`, categories of a guard that withheld
        it; None at the end of text.
      error: with the reason `error`, one line.
    """

    answer_id: int
    index: int
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TextLogprob, ...] = ()
    prompt_logprobs: tuple[TextLogprob | None, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    num_new_tokens: int = 0
    finish_reason: AnswerFinish | None = None
    stop: str | int | None = None
    error: str | None = None
