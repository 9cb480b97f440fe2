"""Examples before a question: which they are, and what a model reads."""

from pathlib import Path

import pytest

from infer.evaluation.choice_rows import choice_rows
from infer.evaluation.few_shot import with_examples
from infer.evaluation.questions import ChoiceQuestion, OpenQuestion, Task
from infer.text_side import load_text_side
from llama_jax.chat import Message
from llama_jax.checkpoints.formats import open_source
from llama_jax.errors import InputError
from llama_jax.verifiers import verifier_of


def question(name, category="sums", answer=0, lead=""):
    return ChoiceQuestion(
        name, category, f"user {name}", lead, f"plain {name}", ("yes", "no"), answer
    )


DEV = Task("dev", (question("a"), question("b", answer=1), question("c", "cities")))


def test_they_are_the_first_others_of_the_category():
    task = Task("test", (question("q"), question("a"), question("r", "cities")))
    shown = with_examples(task, 1, source=DEV).questions
    assert [[one.name for one in asked.examples] for asked in shown] == [["a"], ["b"], ["c"]]
    own = with_examples(Task("own", DEV.questions[:2]), 1, source=None).questions
    assert [one.examples[0].name for one in own] == ["b", "a"]


def test_too_few_or_open_ones_are_refused():
    with pytest.raises(InputError) as error:
        with_examples(Task("test", (question("r", "cities"),)), 2, source=DEV)
    assert str(error.value) == (
        "task test: question r: dev has 1 other questions of category cities, and --few-shot is 2"
    )
    open_question = OpenQuestion("o", None, {}, verifier_of({"verifier": "exact", "answer": "x"}))
    for task, source in ((Task("t", (open_question,)), DEV), (DEV, Task("t", (open_question,)))):
        with pytest.raises(InputError, match="task t: only questions with choices can be shown"):
            with_examples(task, 1, source=source)


def test_a_tuned_model_sees_turns_and_a_base_model_text(chat_checkpoint):
    text = load_text_side(Path(chat_checkpoint), open_source(chat_checkpoint))
    task = Task("t", (question("a", lead="It is"), question("b", answer=1, lead="It is")))
    asked = with_examples(task, 1, source=None).questions[0]
    encode = text.tokenizer.encode
    turns = [
        Message("user", "user b"), Message("assistant", "It is no"), Message("user", "user a")
    ]  # fmt: skip
    yes, no = choice_rows(asked, text, text.chat_format)
    assert yes["prompt"] == [*text.chat_format.encode_prompt(turns), *encode("It is yes")]
    assert no["metadata"] == {"choice_bytes": 2, "choice_tokens": len(encode(" no"))}
    yes, _ = choice_rows(asked, text, None)
    assert yes["prompt"] == text.encode_plain("plain b no\n\nplain a yes")
