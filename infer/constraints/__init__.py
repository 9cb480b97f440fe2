"""Answers held to a grammar: JSON schema, regular expression, Lark, a choice, a tool call."""

from infer.constraints.grammar_compiler import GrammarCompiler

__all__ = ["GrammarCompiler"]
