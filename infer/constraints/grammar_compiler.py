"""From a schema or grammar to constraints on rows, with llguidance.

llguidance (https://github.com/guidance-ai/llguidance) walks the vocabulary as a tree of bytes
beside an Earley parser, so a mask takes microseconds and nothing is computed ahead. What it cannot
do exactly it refuses, and so do we: a schema keyword that it does not implement is an error, never
left out.

JSON is written on one line as `json.dumps` writes it, `{"a": 1, "b": [2, 3]}`: this is how Llama's
tool calls were trained, and where white space is free, small models go on with it for ever.

Where a SentencePiece tokenizer drops the space before the first word of an answer, a grammar that
asks for one there sees it and the reader does not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from infer.constraints.constraint import GrammarConstraint, one_line
from infer.constraints.grammar_tokenizer import llguidance_tokenizer
from infer.constraints.tool_call_grammar import tool_call_grammar
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

_JSON_OPTIONS = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "lenient": False,
    "coerce_one_of": False,
}
# Compiled grammars that are kept: a batch has few of them and many rows.
_KEPT_GRAMMARS = 64

NewConstraint = Callable[[], GrammarConstraint]


class GrammarCompiler:
    """Makes constraints for one tokenizer.

    compiler = GrammarCompiler(tokenizer, eos_ids)
    new_constraint = compiler.json_schema({"type": "integer"})
    constraint = new_constraint()  # one for each row

    Every method raises InputError, in one line, for a grammar that is malformed, that asks for what
    is not implemented, or that no text can satisfy as far as that shows at its beginning. (A dead
    end further on ends that row with an error when it comes there.)
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: frozenset[int]) -> None:
        """
        Args:
          eos_ids: ids that end an answer, allowed where the text is whole; if there are none, a row
            ends where nothing more can follow.

        Raises:
          InputError: llguidance is not installed, or the tokenizer is of a kind without bytes.
        """
        self._eos_ids = eos_ids
        self._vocab_size = tokenizer.vocab_size
        self._tokenizer = llguidance_tokenizer(tokenizer, eos_ids)
        self._compiled = lru_cache(_KEPT_GRAMMARS)(self._compile)

    def json_schema(self, schema: Mapping[str, Any]) -> NewConstraint:
        """JSON that fits the schema; properties in the schema's order."""
        from llguidance import LLMatcher

        if not isinstance(schema, Mapping):
            raise InputError("JSON schema: must be an object")
        try:
            text = json.dumps(schema, allow_nan=False)
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"JSON schema: {one_line(str(error))}") from error
        return self._new_constraint("JSON schema", grammar)

    def json_object(self) -> NewConstraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> NewConstraint:
        """Text that the pattern matches whole; the syntax of Rust's regex crate, which has neither
        look-around nor back-references."""
        from llguidance import LLMatcher

        _check_text("regex", pattern)
        return self._new_constraint("regex", LLMatcher.grammar_from_regex(pattern))

    def lark(self, grammar: str) -> NewConstraint:
        """Text of a context-free grammar in llguidance's dialect of Lark, from its rule `start`."""
        from llguidance import LLMatcher

        _check_text("grammar", grammar)
        return self._new_constraint("grammar", LLMatcher.grammar_from_lark(grammar))

    def choice(self, choices: Sequence[str]) -> NewConstraint:
        """One of these texts."""
        if not choices:
            raise InputError("choice: give at least one text")
        for text in choices:
            _check_text("choice", text)
        return self.lark("start: " + " | ".join(json.dumps(text) for text in choices))

    def tool_call(self, tools: Sequence[Mapping[str, Any]], name: str | None) -> NewConstraint:
        """One call of a tool, in Llama 3.1's JSON form: of the tool of that name, or of any."""
        return self.lark(tool_call_grammar(tools, name, json_options=_JSON_OPTIONS))

    def _new_constraint(self, kind: str, grammar: str) -> NewConstraint:
        matcher = self._compiled(kind, grammar)
        return lambda: self._constraint(matcher)

    def _constraint(self, matcher: Any) -> GrammarConstraint:
        return GrammarConstraint(
            matcher.deep_copy(), eos_ids=self._eos_ids, vocab_size=self._vocab_size
        )

    def _compile(self, kind: str, grammar: str) -> Any:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise InputError(f"{kind}: {one_line(matcher.get_error())}")
        if warnings := matcher.get_grammar_warnings():
            raise InputError(f"{kind}: {one_line(warnings[0])}")
        first = self._constraint(matcher)
        if not first.mask().any():
            raise InputError(f"{kind}: {first.error or 'nothing can be said'}")
        return matcher


def _check_text(kind: str, text: Any) -> None:
    if not isinstance(text, str):
        raise InputError(f"{kind}: must be text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{kind}: has half a surrogate pair, which is no text") from error
