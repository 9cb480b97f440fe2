"""A request after parsing: what to answer, and how to write it down."""

from dataclasses import dataclass
from typing import Literal

from infer.answers import AnswerRequest
from llama_jax.chat import Message


@dataclass(frozen=True)
class EchoedPrompt:
    """A prompt as its completions repeat it.

    Attributes:
      text: as it was given, or that of its ids.
      first_bytes: of its first token, which has no log-probability to carry them.
    """

    text: str
    first_bytes: bytes


@dataclass(frozen=True)
class ParsedRequest:
    """What the body of a request asks for.

    Attributes:
      kind: which of OpenAI's interfaces the response is written for.
      model_name: what the response calls the model.
      answers: one for each prompt; a chat request has one. The choices of a response are the
        samples of the first prompt, then those of the second, and so on.
      messages: of a chat request, the dialog.
      stream: whether the client wants chunks.
      include_usage: whether the chunks end with one that counts tokens.
      echo: the prompts, if each completion is to begin with its own; else None.
      textless_ids: ids that have no text in the answers: special tokens, where they are skipped.
    """

    kind: Literal["chat", "completion"]
    model_name: str
    answers: tuple[AnswerRequest, ...]
    messages: tuple[Message, ...] = ()
    stream: bool = False
    include_usage: bool = False
    echo: tuple[EchoedPrompt, ...] | None = None
    textless_ids: frozenset[int] = frozenset()
