"""The sandbox in which a checkpoint's Jinja chat template runs: Hugging Face's dialect, bounded.

A template is a program from a stranger's file. Jinja's immutable sandbox keeps it from Python's
internals and from changing what it is given; beyond that, here, it may not

- go around loops and into macros more than `MAX_STEPS` times in all (`range` alone is limited by
  the sandbox, nested ranges are not),
- write more than `MAX_CHARACTERS`, or make a longer text or list with `+`, `*` or `~`,
- make integers of more than `MAX_POWER_BITS` bits with `**`.

Not bounded: the memory of a single filter or string method (`replace`, `center`, `join`, `%` with a
width) and of nested `{% set %}` blocks. Who runs templates of untrusted checkpoints on a shared
machine should limit the process.

The dialect (transformers' `chat_template_utils`): blocks trimmed, `break` and `continue`,
`{% generation %}` around what the assistant says, `tojson` without HTML escapes, `raise_exception`,
`strftime_now`.
"""

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

from llama_jax.errors import InputError

MAX_STEPS = 1_000_000
MAX_CHARACTERS = 1 << 24
MAX_POWER_BITS = 4096

_steps_left: ContextVar[int] = ContextVar("steps_left")


class TemplateRefusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`: its content, between the environment's markers."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        self.environment.has_generation_tag = True
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("enclose"), [], [], body).set_lineno(line)

    def enclose(self, caller: Callable[[], str]) -> str:
        begin, end = self.environment.generation_markers
        return begin + caller() + end


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja with Hugging Face's settings and the bounds above.

    Attributes:
      generation_markers: what `{% generation %}` puts before and after its content.
      has_generation_tag: whether a template that was compiled here has that tag.
    """

    intercepted_binops = frozenset(["+", "*", "**"])

    def __init__(self, generation_markers: tuple[str, str]):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
        )
        self.generation_markers = generation_markers
        self.has_generation_tag = False
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        # A toy of Jinja's that writes any amount of Latin.
        del self.globals["lipsum"]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > MAX_POWER_BITS:
                raise SecurityError(f"a number of more than {MAX_POWER_BITS} bits")
        elif operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                    _check_length(len(sequence) * count)
        elif operator == "+" and isinstance(left, str | list | tuple):
            if isinstance(right, str | list | tuple):
                _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def count_step(self) -> bool:
        """True; called by the compiled template on every pass of a loop and call of a macro."""
        left = _steps_left.get() - 1
        if left < 0:
            raise SecurityError(f"more than {MAX_STEPS} passes of loops")
        _steps_left.set(left)
        return True

    def concatenate(self, *items: Any) -> str:
        """The operator `~`."""
        texts = [str(item) for item in items]
        _check_length(sum(map(len, texts)))
        return "".join(texts)

    def compile_bounded(
        self, source: str, *, place: str, change: Callable[[nodes.Template], None]
    ) -> jinja2.Template:
        """The template of `source` with the bounds built in.

        Args:
          place: where the template comes from, for errors.
          change: applied to the syntax tree before it is compiled.

        Raises:
          InputError: the template is not valid.
        """
        try:
            tree = self.parse(source)
            change(tree)
            tree = _Bounds().visit(tree)
            tree.set_environment(self)
            return self.from_string(tree)
        # Whatever Jinja and Python's compiler throw at a stranger's program, the file is at fault.
        except Exception as error:
            raise InputError(f"{place}: not a valid template: {_one_line(error)}") from error


class _Bounds(NodeTransformer):
    """Puts `count_step` into every loop and macro, and `concatenate` in the place of `~`.

    They are called as attributes of the environment, which no variable of a template can shadow.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.body.insert(0, _count_step_statement(node))
        if node.test is not None:
            # Passes that the loop's own filter skips count too.
            node.test = nodes.And(_call("count_step", [], node), node.test, lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        node.body.insert(0, _count_step_statement(node))
        return self.generic_visit(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        node.body.insert(0, _count_step_statement(node))
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return self.generic_visit(_call("concatenate", node.nodes, node))


def _call(method: str, arguments: list[nodes.Expr], place: nodes.Node) -> nodes.Call:
    line = {"lineno": place.lineno}
    attribute = nodes.EnvironmentAttribute(method, **line)
    return nodes.Call(attribute, arguments, [], None, None, **line)


def _count_step_statement(place: nodes.Node) -> nodes.ExprStmt:
    return nodes.ExprStmt(_call("count_step", [], place), lineno=place.lineno)


def _raise_exception(message: object) -> None:
    raise TemplateRefusal(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`; the parameters' names are what templates write."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise SecurityError(f"more than {MAX_CHARACTERS} characters or items")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def render_bounded(
    template: jinja2.Template, variables: Mapping[str, Any], *, now: datetime, place: str
) -> str:
    """What `template` writes.

    Args:
      variables: what it may read.
      now: the time that `strftime_now` tells.
      place: where the template comes from, for errors.

    Raises:
      InputError: the template refuses the dialog, fails, or passes a bound.
    """
    previous = _steps_left.set(MAX_STEPS)
    try:
        parts = []
        length = 0
        for part in template.generate(**variables, strftime_now=now.strftime):
            length += len(part)
            _check_length(length)
            parts.append(part)
        return "".join(parts)
    except TemplateRefusal as error:
        raise InputError(f"{place}: refuses this dialog: {_one_line(error)}") from error
    except Exception as error:
        message = f"{type(error).__name__}: {_one_line(error)}"
        raise InputError(f"{place}: fails on this dialog: {message}") from error
    finally:
        _steps_left.reset(previous)
