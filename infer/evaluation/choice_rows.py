"""Multiple choice by log-probability: a row of a batch job for each choice, and what its answer
says.

The prompt of a row is question and choice together, scored and not continued. Ids rather than text
go into it, so that where the choice begins is known exactly. In plain text the choice's ids are
what the question and the choice, encoded together, have more than the question alone, as in the
harness: the tokens of " Paris" after "Answer:", and not those of " " and "Paris".
"""

from typing import Any, NamedTuple

from infer.evaluation.questions import ChoiceQuestion
from infer.text_side import TextSide
from llama_jax.batch_files.answer_row import AnswerRow
from llama_jax.chat import ChatFormat, Message
from llama_jax.errors import InputError


class ChoiceScore(NamedTuple):
    """How likely a choice is after its question.

    Attributes:
      logprob: natural logarithm of its probability, of all its tokens.
      num_bytes: of its text in UTF-8.
      num_tokens: of it.
    """

    logprob: float
    num_bytes: int
    num_tokens: int

    @property
    def per_byte(self) -> float:
        """Longer choices are less likely for no better reason than their length."""
        return self.logprob / self.num_bytes

    @property
    def per_token(self) -> float:
        return self.logprob / self.num_tokens


def choice_rows(
    question: ChoiceQuestion, text: TextSide, chat_format: ChatFormat | None
) -> list[dict[str, Any]]:
    """Rows without a `custom_id`, one a choice.

    Args:
      chat_format: of a model tuned for chat; None for plain text.
    """
    rows = []
    turns = [Message("user", question.user)]
    plain = question.plain
    for example in reversed(question.examples):
        turns = [Message("user", example.user), Message("assistant", example.reply), *turns]
        plain = f"{example.plain} {example.choices[example.answer]}\n\n{plain}"
    for choice in question.choices:
        if chat_format is not None:
            context = chat_format.encode_prompt(turns)
            lead = text.tokenizer.encode(question.lead) if question.lead else []
            whole = [*context, *text.tokenizer.encode(question.said(choice))]
            context = [*context, *lead]
        else:
            context = text.encode_plain(plain)
            whole = text.encode_plain(f"{plain} {choice}")
        num_tokens = len(whole) - len(context)
        if num_tokens < 1:
            raise InputError(f"choices: {choice!r} has no token of its own in this vocabulary")
        rows.append(
            {
                "prompt": whole,
                "max_tokens": 0,
                "temperature": 0,
                "prompt_logprobs": 0,
                "metadata": {"choice_bytes": len(choice.encode()), "choice_tokens": num_tokens},
            }
        )
    return rows


def choice_score(row: dict[str, Any], answer: AnswerRow) -> ChoiceScore:
    """Of a row and its answer.

    Raises `InputError` if the answer has no log-probabilities of the choice.
    """
    num_bytes, num_tokens = (
        row["metadata"][name] for name in ("choice_bytes", "choice_tokens")
    )  # fmt: skip
    logprobs = answer.body.get("prompt_logprobs")
    if not isinstance(logprobs, list) or len(logprobs) != len(row["prompt"]):
        raise InputError(f"{answer.custom_id}: has no log-probabilities of its prompt")
    last = zip(row["prompt"][-num_tokens:], logprobs[-num_tokens:], strict=True)
    logprob = sum(ranked[str(token)]["logprob"] for token, ranked in last)
    return ChoiceScore(logprob, num_bytes, num_tokens)
