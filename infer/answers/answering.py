"""`Answering`: requests in ids to answers in text, over any engine of ids."""

from typing import Protocol

from infer.answers.answer_delta import AnswerDelta
from infer.answers.answer_request import AnswerRequest
from infer.engine.request import Progress, Request
from llama_jax.tokenizers.interface import Tokenizer


class TokenEngine(Protocol):
    """What `Answering` needs of `infer.engine.Engine`: one thread, nothing waits."""

    @property
    def is_idle(self) -> bool: ...

    def add(self, request: Request) -> int: ...

    def cancel(self, request_id: int) -> None: ...

    def step(self) -> list[Progress]: ...


class Answering:
    """Answers requests with an engine, in text. Of one thread, as the engine is."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer) -> None: ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to answer."""
        ...

    def add(self, request: AnswerRequest) -> int:
        """Queues all samples of `request`; the id under which their deltas will come.

        Raises:
          InputError: it can never be answered (see `Engine.add`); nothing of it is queued then.
        """
        ...

    def cancel(self, answer_id: int) -> None:
        """Drops all samples of a request; no delta of it comes any more. An id that is finished or
        unknown is left alone: the client may go in the moment the answer ends."""
        ...

    def step(self) -> list[AnswerDelta]:
        """Lets the engine work for a while; what is new, in the order of the samples' progress."""
        ...
