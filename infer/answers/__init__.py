"""Answers in text on top of the engine's ids: stop strings, samples, tool calls, logprobs.

`Answering` has the shape of the engine: add requests, step, read what is new.
"""

from infer.answers.answer_delta import AnswerDelta, LikelyToken, TextLogprob
from infer.answers.answer_request import AnswerRequest
from infer.answers.answering import Answering
from infer.answers.collected_answer import CollectedAnswer

__all__ = [
    "AnswerDelta",
    "AnswerRequest",
    "Answering",
    "CollectedAnswer",
    "LikelyToken",
    "TextLogprob",
]
