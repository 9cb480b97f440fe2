"""Tool calls in answers: nothing of a call is shown as text, and other text is not kept waiting."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.answers.tool_call_hold import ToolCallHold
from llama_jax.chat import ToolCall, parse_tool_calls

from .test_answering import EOM, EOT, PYTHON_TAG, TOKENIZER, answer, answers

F = ToolCall("f", {"a": 1})
CALLS = {
    '{"name": "f", "parameters": {"a": 1}}': ("", F),
    ' \n{"type": "function", "name": "f", "parameters": {"a": 1}}': ("", F),
    "[f(a=1)]": ("", F),
    'brave_search.call(query="rain")': ("", ToolCall("brave_search", {"query": "rain"})),
    '<function=f>{"a": 1}</function>': ("", F),
    'Sure.  <function=f>{"a": 1}</function>\n': ("Sure.", F),
    'Sure. <function=f>{"a": 1}</function> Done. ': ("Sure.  Done.", F),
}
TEXTS = [
    "Hello, world! ",
    "  Hello",
    '{"answer": 42}',
    '{"name": "Bob", "age": 3}',
    "{not JSON",
    "[1] says so [2].",
    "[f(",
    "brave searchers",
    "1 < 2 <funct <function",
    "<function=f>{broken",
    " \n ",
    "",
]


def shown_at_once(text):
    """What is shown before the last delta, with an id a step."""
    (deltas,), _ = answers([[*TOKENIZER.encode(text), EOT]], parse_tools=True, tokens_per_step=1)
    return "".join(delta.text for delta in deltas[:-1])


@pytest.mark.parametrize("text", CALLS)
@pytest.mark.parametrize("tokens_per_step", [1, 3, 1000])
def test_a_call_is_told_apart_from_text(text, tokens_per_step):
    content, call = CALLS[text]
    whole = answer(text, parse_tools=True, tokens_per_step=tokens_per_step, num_logprobs=0)
    assert (whole.text, whole.tool_calls) == (content, (call,))
    assert whole.finish_reason == "tool_calls"
    # Its ids are known all the same.
    assert whole.tokens == TOKENIZER.encode(text)
    assert len(whole.logprobs) == len(whole.tokens)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokens_per_step", [1, 1000])
def test_text_that_is_no_call_comes_out_whole(text, tokens_per_step):
    whole = answer(text, parse_tools=True, tokens_per_step=tokens_per_step)
    assert (whole.text, whole.tool_calls, whole.finish_reason) == (text, (), "stop")


def test_nothing_of_a_call_is_shown_while_it_comes():
    for text, (content, _) in CALLS.items():
        assert content.startswith(shown_at_once(text))
    assert shown_at_once('Sure.  <function=f>{"a": 1}</function>') == "Sure."


def test_text_is_shown_as_soon_as_it_can_be_no_call():
    # White space waits: it would not belong to the content if a call followed.
    assert shown_at_once("Hello, world! ") == "Hello, world!"
    assert shown_at_once('{"answer": 42}') == '{"answer": 42}'
    assert shown_at_once("[1] says so [2].") == "[1] says so [2]."
    assert shown_at_once("brave searchers") == "brave searchers"
    assert shown_at_once("a <functional> b") == "a <functional> b"


def test_without_tools_a_call_is_text():
    text = '{"name": "f", "parameters": {"a": 1}}'
    whole = answer(text, tokens_per_step=1)
    assert (whole.text, whole.tool_calls, whole.finish_reason) == (text, (), "stop")


@pytest.mark.parametrize("skip_special", [False, True])
def test_after_the_python_tag_all_is_a_call(skip_special):
    code = "print(1)"
    ids = [PYTHON_TAG, *TOKENIZER.encode(code)]
    whole = answer(ids, end=[EOM], parse_tools=True, tokens_per_step=1, skip_special=skip_special)
    assert (whole.text, whole.tool_calls) == ("", (ToolCall("code_interpreter", {"code": code}),))
    assert (whole.tokens, whole.num_new_tokens) == (ids, len(ids) + 1)
    ids = [PYTHON_TAG, *TOKENIZER.encode('{"name": "f", "parameters": {"a": 1}}')]
    assert answer(ids, parse_tools=True).tool_calls == (F,)


def test_the_python_tag_counts_at_the_start_only_and_as_an_id_only():
    ids = [*TOKENIZER.encode("x"), PYTHON_TAG, *TOKENIZER.encode("y")]
    assert answer(ids, parse_tools=True).text == "xy"
    assert answer("<|python_tag|>print(1)", parse_tools=True).text == "<|python_tag|>print(1)"


def test_several_calls_come_together():
    text = '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}'
    assert answer(text, parse_tools=True).tool_calls == (F, ToolCall("g"))


def test_half_a_call_is_text():
    """Cut off by the limit, code or a list of calls would not be what the model meant."""
    text = '{"name": "f", "parameters": {"a": 1}}'
    whole = answer(text, end=[], max_new_tokens=len(text), parse_tools=True)
    assert (whole.text, whole.tool_calls, whole.finish_reason) == (text, (), "length")
    ids = [PYTHON_TAG, *TOKENIZER.encode("rm(x)")]
    whole = answer(ids, end=[], max_new_tokens=len(ids), parse_tools=True)
    assert (whole.text, whole.tool_calls) == ("rm(x)", ())


def test_a_call_before_a_stop_string_counts():
    whole = answer('[f(a=1)]END"', parse_tools=True, stop_strings=("END",))
    assert (whole.text, whole.tool_calls) == ("", (F,))
    assert (whole.finish_reason, whole.stop) == ("tool_calls", "END")


fragments = st.sampled_from(
    [*"{[<(f=1)]} \n", "<function=", "f>", '{"a": 1}', "</function>", '"name"', "brave_search", ","]
    + [".call(query=", '"x")', *CALLS]
)


@settings(max_examples=250)
@given(pieces=st.lists(fragments, max_size=12), python_tag=st.booleans(), parse=st.booleans())
def test_any_text_gives_the_calls_of_the_whole_text(pieces, python_tag, parse):
    hold = ToolCallHold(python_tag=python_tag)
    shown = "".join(hold.push(piece) for piece in pieces)
    rest, calls = hold.finish(parse=parse)
    text = "".join(pieces)
    if not parse:
        assert (shown + rest, calls) == (text, ())
        return
    content, expected = parse_tool_calls(text, python_tag=python_tag)
    assert calls == expected
    # White space before the content can have gone out before the call came.
    assert (shown + rest).strip() == content.strip() if calls else shown + rest == text
