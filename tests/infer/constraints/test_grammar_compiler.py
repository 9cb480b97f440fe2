"""Whatever a mask allows leads to a text that fits, as other libraries judge it."""

import json
import re
import sys

import jsonschema
import numpy as np
import pytest

from infer.constraints import GrammarCompiler
from infer.constraints.constraint import one_line
from llama_jax.chat.tool_calls import parse_tool_calls
from llama_jax.errors import InputError
from tests.infer.constraints import walks

EOS = frozenset({0, 2})
# Bounded everywhere, so that a random walk ends.
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "bé", None, 1.5]}, "maxItems": 3},
        "kin": {"anyOf": [{"$ref": "#/$defs/kin"}, {"type": "null"}]},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
    "$defs": {
        "kin": {
            "type": "object",
            "properties": {"id": {"type": "string", "pattern": "^[A-F]{2}-[0-9]{2}$"}},
            "required": ["id"],
            "additionalProperties": False,
        }
    },
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"$ref": "#/$defs/city"},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                },
                "required": ["city"],
                "additionalProperties": False,
                "$defs": {"city": {"enum": ["Paris", 'São "P"']}},
            },
        },
    },
    {"type": "function", "function": {"name": 'stop "é" now'}},
]


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GrammarCompiler(tokenizer, EOS)


def answers(tokenizer, new_constraint, *, count=12):
    return [walks.random_answer(tokenizer, new_constraint, EOS, seed=seed) for seed in range(count)]


def test_random_json_fits_its_schema(tokenizer, compiler):
    texts = answers(tokenizer, compiler.json_schema(PERSON))
    for text in texts:
        value = json.loads(text)
        jsonschema.validate(value, PERSON)
        # On one line, as json.dumps writes it.
        assert json.dumps(value, ensure_ascii=False).count(" ") == text.count(" ")
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    "pattern", [r"a{2,3}", r"(foo|bar){1,3} \d{2}", r"^[x-z]{4}$", r"a/b\n\"é?", r"[^a]{5}"]
)
def test_random_text_matches_its_pattern(tokenizer, compiler, pattern):
    for text in answers(tokenizer, compiler.regex(pattern)):
        assert re.fullmatch(pattern, text)


def test_random_text_of_a_grammar_is_of_its_language(tokenizer, compiler):
    grammar = 'start: "(" inner ")"\ninner: /[0-9]{1,2}/ | "<" inner ">"'
    texts = answers(tokenizer, compiler.lark(grammar), count=40)
    for text in texts:
        assert re.fullmatch(r"\((<*)[0-9]{1,2}(>*)\)", text) and text.count("<") == text.count(">")
    assert any("<" in text for text in texts)


def test_a_choice_is_one_of_the_texts(tokenizer, compiler):
    choices = ["yes", "yes, please", "nein", 'a "quoted" \\ é🙂\n', "<|im_end|>"]
    texts = set(answers(tokenizer, compiler.choice(choices), count=60))
    assert texts == set(choices)


def test_any_json_object_is_an_object_at_its_shortest(tokenizer, compiler):
    constraint = compiler.json_object()()
    for token in tokenizer.encode('{"a": [1, {"b": null}]}'):
        assert token in walks.allowed_by(constraint)
        constraint.accept(token)
    assert constraint.is_finished and walks.allowed_by(constraint) == sorted(EOS)


@pytest.mark.parametrize("name", [None, "get_weather", 'stop "é" now'])
def test_a_tool_call_is_read_back_by_the_chat_format(tokenizer, compiler, name):
    seen = set()
    for text in answers(tokenizer, compiler.tool_call(TOOLS, name), count=16):
        content, (call,) = parse_tool_calls(text)
        assert content == ""
        seen.add(call.name)
        if call.name == "get_weather":
            jsonschema.validate(call.arguments, TOOLS[0]["function"]["parameters"])
        else:
            assert call.arguments == {}
    assert seen == ({name} if name else {"get_weather", 'stop "é" now'})


def test_an_end_id_is_allowed_exactly_where_the_text_is_whole(tokenizer, compiler):
    new_constraint = compiler.regex("a|ab?c")
    whole = re.compile("a|ab?c")
    for text in ("", "a", "ab", "ac", "abc"):
        constraint = new_constraint()
        for character in text:
            constraint.accept(*tokenizer.encode(character))
        allowed = set(walks.allowed_by(constraint))
        assert (EOS <= allowed) == bool(whole.fullmatch(text))
        assert EOS <= allowed or not EOS & allowed
        assert constraint.is_finished == (text in ("ac", "abc"))


def test_rows_of_one_grammar_do_not_meet_and_replaying_gives_the_same_masks(tokenizer, compiler):
    new_constraint = compiler.json_schema(PERSON)
    ids = tokenizer.encode('{"name": "x", "tags": [1.5]}')
    first, masks = new_constraint(), []
    for token in ids:
        masks.append(first.mask())
        first.accept(token)
    second = new_constraint()
    for token, mask in zip(ids, masks, strict=True):
        np.testing.assert_array_equal(second.mask(), mask)
        second.accept(token)


def test_without_end_ids_a_row_finishes_where_nothing_can_follow(tokenizer):
    constraint = GrammarCompiler(tokenizer, frozenset()).regex("ab?")()
    assert constraint.mask().shape == (-(-tokenizer.vocab_size // 32),)
    constraint.accept(*tokenizer.encode("a"))
    assert not constraint.is_finished
    assert [tokenizer.decode([token]) for token in walks.allowed_by(constraint)] == ["b"]
    constraint.accept(*tokenizer.encode("b"))
    assert constraint.is_finished


@pytest.mark.parametrize(
    "schema, message",
    [
        ({"type": "integer", "minimum": 5, "maximum": 3}, "greater than maximum"),
        ({"type": "array", "items": {}, "uniqueItems": True}, "uniqueItems"),
        ({"not": {}}, '"not"'),
        ({"type": "string", "format": "poem"}, "Unknown format: poem"),
        ({"type": "string", "pattern": "(a"}, "unclosed group"),
        ({"type": "frob"}, "frob"),
        ({"enum": []}, "Unsatisfiable"),
        ({"$ref": "#/missing"}, "missing"),
        ({"$ref": "http://localhost:1/x"}, "localhost"),
        ({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"const": float("nan")}, "JSON"),
        ({"const": {1}}, "JSON"),
        ([], "must be an object"),
        ({"const": "\ud800"}, "JSON schema"),
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_kept_is_refused_in_one_line(compiler, schema, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        compiler.json_schema(schema)
    assert "\n" not in str(caught.value)


def test_a_schema_nested_beyond_reason_is_refused(compiler):
    schema = {"type": "integer"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InputError, match="JSON schema"):
        compiler.json_schema(schema)


@pytest.mark.parametrize(
    "method, argument, message",
    [
        ("regex", "[a", "unclosed character class"),
        ("regex", "(?=a)b", "look-ahead"),
        ("regex", r"[^\s\S]", "no text fits"),
        ("regex", "a\ud800", "surrogate"),
        ("regex", 3, "must be text"),
        ("lark", "start: missing", "unknown name"),
        ("lark", "junk !", "lexer error"),
        ("lark", "start: <|nope|>", "unknown special token"),
        ("choice", [], "at least one"),
        ("choice", ["a", "\udfff"], "surrogate"),
    ],
    ids=ascii,
)
def test_a_grammar_that_cannot_be_kept_is_refused_in_one_line(compiler, method, argument, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        getattr(compiler, method)(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tools, name, message",
    [
        (TOOLS, "missing", "no tool is named 'missing'"),
        ([], None, "there are no tools"),
        ([{"type": "function"}], None, r"tools\[0\]"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}],
            "f",
            "tool f: parameters must be of type object",
        ),
    ],
)
def test_a_tool_call_that_cannot_be_made_is_refused(compiler, tools, name, message):
    with pytest.raises(InputError, match=message):
        compiler.tool_call(tools, name)


def test_a_token_that_is_not_allowed_ends_the_row_and_no_other(tokenizer, compiler, capfd):
    new_constraint = compiler.regex("ab")
    constraint, other = new_constraint(), new_constraint()
    constraint.accept(*tokenizer.encode("x"))
    assert "doesn't satisfy the grammar" in constraint.error and "\n" not in constraint.error
    assert not constraint.mask().any() and not constraint.is_finished
    assert other.error is None and other.mask().any()
    assert capfd.readouterr() == ("", "")


def test_a_dead_end_in_the_middle_allows_nothing(tokenizer, compiler):
    constraint = compiler.lark('start: "a" DEAD\nDEAD: /b[^\\s\\S]/ | /c/ & /d/')()
    constraint.accept(*tokenizer.encode("a"))
    assert not constraint.mask().any() and not constraint.is_finished
    assert constraint.error == "no text fits any more"


def test_without_llguidance_the_message_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError, match=r"pip install \"\.\[serve\]\""):
        GrammarCompiler(tokenizer, EOS)


def test_end_ids_outside_the_vocabulary_are_refused(tokenizer):
    with pytest.raises(InputError, match="outside the vocabulary"):
        GrammarCompiler(tokenizer, frozenset({tokenizer.vocab_size}))


def test_messages_lose_the_source_excerpt_only():
    assert one_line("NoExtensionBias <non-verbose/>") == "NoExtensionBias"
    assert one_line('at 1(8): bad "x":\n    x\n  ^\n   1 | start: x\n    ^\n') == (
        'at 1(8): bad "x": x ^'
    )
