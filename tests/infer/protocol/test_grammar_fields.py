"""Fields that hold an answer to a grammar, and what the grammar then allows."""

import json

import pytest

from .asking import EOT, MODEL, PARSERS, TOOL, chat, only_answer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


GRAMMARS = {
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "it", "schema": SCHEMA, "strict": True},
        }
    },
    "structured json": {"structured_outputs": {"json": SCHEMA}},
    "guided_json": {"guided_json": SCHEMA},
    "guided_json text": {"guided_json": json.dumps(SCHEMA)},
    "json_object": {"response_format": {"type": "json_object"}},
    "structured json_object": {"structured_outputs": {"json_object": True}},
    "regex": {"guided_regex": r'\{"a": [0-9]\}'},
    "lark": {"guided_grammar": 'start: "{" /"a": [0-9]/ "}"'},
    "choice": {"guided_choice": ['{"a": 1}', "no"]},
}  # fmt: skip


def spelled(answer, text):
    """Whether the answer's grammar lets the model write `text` and then end."""
    constraint = answer.constraint()

    def allows(token):
        return bool(constraint.mask()[token // 32] >> (token % 32) & 1)

    for token in MODEL.tokenizer.encode(text):
        if constraint.is_finished or not allows(token):
            return False
        constraint.accept(token)
    return constraint.is_finished or allows(EOT)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_that_must_come_has_a_grammar(choice):
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    answer = only_answer(chat(tools=[strict], tool_choice=choice, parallel_tool_calls=False))
    assert answer.parse_tools
    assert spelled(answer, '{"name": "f", "parameters": {"a": 1}}')
    assert not spelled(answer, '{"name": "f", "parameters": {"a": "1"}}')
    assert not spelled(answer, "Hello")


@PARSERS
@pytest.mark.parametrize("fields", GRAMMARS.values(), ids=GRAMMARS)
def test_answers_can_be_held_to_a_grammar(parse, fields):
    answer = only_answer(parse(fields))
    assert spelled(answer, '{"a": 1}')
    assert not spelled(answer, "yes")


@PARSERS
def test_text_is_no_grammar(parse):
    assert parse(response_format={"type": "text"}) == parse()
