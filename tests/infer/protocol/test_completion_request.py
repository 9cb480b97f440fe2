"""Completion requests: prompts in four shapes, echo, and what cannot be asked."""

import pytest

from infer.protocol import RequestError, parse_completion

from .asking import BOS, EOT, HELLO, MODEL, TOOL, completion, only_answer


def test_a_completion_has_16_tokens_if_there_is_room():
    assert only_answer(completion()).max_new_tokens == 16
    assert only_answer(completion(prompt=[1] * 390)).max_new_tokens == 10
    request = parse_completion({"prompt": "x"}, MODEL, default_seed=0, default_max_tokens=99)
    assert only_answer(request).max_new_tokens == 99


def test_prompts_are_texts_or_ids():
    assert only_answer(completion(prompt="ab")).prompt == (BOS, *MODEL.tokenizer.encode("ab"))
    assert only_answer(completion(prompt=[1, 2])).prompt == (1, 2)
    answers = completion(prompt=["a", "b"], n=2).answers
    assert [answer.prompt[1:] for answer in answers] == [
        tuple(MODEL.tokenizer.encode(text)) for text in "ab"
    ]
    # Choice i has the seed plus i.
    assert [answer.sampling.seed for answer in answers] == [5, 7]
    assert [answer.prompt for answer in completion(prompt=[[1], [2, 3]]).answers] == [(1,), (2, 3)]
    assert only_answer(completion(prompt="", max_tokens=1)).prompt == (BOS,)
    assert only_answer(completion(prompt="a", add_special_tokens=False)).prompt[0] != BOS


def test_a_special_token_in_a_text_is_what_the_request_says_it_is():
    with pytest.raises(RequestError, match="spells the special token <eot>; say with parse_spec"):
        completion(prompt="a<eot>")
    assert only_answer(completion(prompt="a<eot>", parse_special=True)).prompt[-1] == EOT
    text = only_answer(completion(prompt="a<eot>", parse_special=False)).prompt
    assert EOT not in text
    # BOS that is there already is not put there again.
    assert only_answer(completion(prompt="<bos>a", parse_special=True)).prompt.count(BOS) == 1


def test_echo_shows_the_prompt():
    (echo,) = completion(prompt="Hi", echo=True).echo
    assert (echo.text, echo.first_bytes) == ("Hi", b"<bos>")
    ids = [BOS, *MODEL.tokenizer.encode("Hi")]
    assert completion(prompt=ids, echo=True).echo[0].text == "Hi"
    assert completion(prompt=ids, echo=True, skip_special_tokens=False).echo[0].text == "<bos>Hi"
    answer = only_answer(completion(echo=True, logprobs=2, max_tokens=0))
    assert (answer.num_prompt_logprobs, answer.max_new_tokens) == (2, 0)


COMPLETION_REFUSED = {
    "no prompt": ({"prompt": None}, "prompt", "must be a text"),
    "empty": ({"prompt": []}, "prompt", "must be a text"),
    "no ids": ({"prompt": [[]]}, "prompt", "is empty"),
    "number": ({"prompt": 5}, "prompt", "must be a text"),
    "mixed": ({"prompt": ["a", [1]]}, "prompt", "all texts or all lists"),
    "texts and ids": ({"prompt": ["a", 1]}, "prompt", "all texts or all lists"),
    "outside": ({"prompt": [[1], [265]]}, "prompt[1]", "265 is no id of the vocabulary of 265"),
    "negative": ({"prompt": [-1]}, "prompt", "-1 is no id"),
    "boolean": ({"prompt": [True]}, "prompt", "True is no id"),
    "surrogate": ({"prompt": "\ud800"}, "prompt", "half a surrogate pair"),
    "long": ({"prompt": [1] * 400}, "prompt", "400 tokens, and prompt and answer share a context"),
    "second long": ({"prompt": [[1], [1] * 401]}, "prompt[1]", "401 tokens"),
    "best_of": ({"best_of": 3}, "best_of", "is not supported"),
    "choices": ({"prompt": ["a"] * 17, "n": 128}, "n", "is over 2048"),
    "prompts": ({"prompt": ["a"] * 2049}, "prompt", "the most is 2048"),
    "messages": ({"messages": HELLO}, "messages", "unknown field"),
    "tools": ({"tools": [TOOL]}, "tools", "unknown field"),
    "parse_special": ({"parse_special": 1}, "parse_special", "must be true or false"),
    "scores twice": (
        {"echo": True, "logprobs": 1, "prompt_logprobs": 1}, "prompt_logprobs", "already",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "fields, param, message", COMPLETION_REFUSED.values(), ids=COMPLETION_REFUSED
)
def test_what_a_completion_request_cannot_ask_for(fields, param, message):
    with pytest.raises(RequestError) as caught:
        completion(fields)
    assert message in str(caught.value)
    assert caught.value.param == param


def test_too_long_a_prompt_has_openais_code_and_both_numbers():
    with pytest.raises(RequestError, match="has 500 tokens.* context of 400") as caught:
        completion(prompt=[1] * 500)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(RequestError, match="395 .* make 405, .* context of 400; .* at most 5"):
        completion(prompt=[1] * 395, max_tokens=10)
