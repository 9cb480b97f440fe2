"""One dialog on its way through one chat template.

It is rendered twice: as it is, which is the text that counts, and with the template's special
tokens marked, which tells them from those that messages contain. The loss mask is what the template
marks with `{% generation %}`. For the many templates that do not, it comes from rendering growing
prefixes: the assistant's part of message i is what rendering i messages with the generation prompt
lacks of rendering i + 1. White space that a template puts after the token that ends a message is
left out. A template that writes earlier turns differently once later ones follow (dropping their
reasoning, say) has no such prefixes; it is refused for training, and still serves prompts.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2

from llama_jax.chat.message_dicts import message_to_dict
from llama_jax.chat.messages import Message, is_json_value
from llama_jax.chat.template_markers import Markers, Rendering, first_free_character, texts_of
from llama_jax.chat.template_sandbox import ChatEnvironment, render_bounded
from llama_jax.errors import InputError


class TemplateProgram:
    """A template's source, compiled as it is and, on demand, with its special tokens marked.

    Attributes:
      place: where the template comes from, for errors.
      has_generation_tag: whether it marks what the assistant says.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, int],
        variables: Mapping[str, Any],
        place: str,
    ):
        """
        Args:
          special_tokens: text -> id.
          variables: what the template sees besides the dialog.

        Raises:
          InputError: the template is not valid.
        """
        self.place = place
        self._source = source
        self._special_tokens = special_tokens
        self._variables = dict(variables)
        environment = ChatEnvironment(("", ""))
        self._as_it_is = environment.compile_bounded(source, place=place, change=lambda tree: None)
        self.has_generation_tag = environment.has_generation_tag
        # Almost always one; a message with private characters in it needs others.
        self._marked = lru_cache(maxsize=4)(self._compile_marked)

    def render(self, dialog: Mapping[str, Any], *, now: datetime) -> str:
        """What the template writes."""
        variables = {**self._variables, **dialog}
        return render_bounded(self._as_it_is, variables, now=now, place=self.place)

    def render_marked(self, dialog: Mapping[str, Any], *, now: datetime) -> tuple[str, Markers]:
        """What the template writes with its special tokens marked, and the markers."""
        texts = [dialog, self._variables, self._source]
        first = first_free_character(texts, Markers.size(self._special_tokens))
        template, markers = self._marked(first)
        marked = {
            name: markers.mark(value) if isinstance(value, str) else value
            for name, value in self._variables.items()
        }
        text = render_bounded(template, {**marked, **dialog}, now=now, place=self.place)
        return text, markers

    def _compile_marked(self, first: int) -> tuple[jinja2.Template, Markers]:
        markers = Markers(self._special_tokens, first)
        environment = ChatEnvironment(markers.generation)
        template = environment.compile_bounded(
            self._source, place=self.place, change=markers.mark_tree
        )
        return template, markers


class TemplateDialog:
    """One dialog for one `TemplateProgram`; all its renderings happen at the same moment."""

    def __init__(
        self,
        program: TemplateProgram,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        *,
        now: datetime,
    ):
        if not messages:
            raise InputError("messages: the dialog is empty")
        self._program = program
        self._messages = [message_to_dict(message) for message in messages]
        self._tools = _checked_objects(tools, "tools")
        self._documents = _checked_objects(documents, "documents")
        self._now = now

    def rendering(self, add_generation_prompt: bool) -> Rendering:
        """The dialog as the template writes it, its special tokens told apart.

        Raises:
          InputError: the template fails, or its special tokens cannot be told from the messages'.
        """
        place = self._program.place
        dialog = self._variables(self._messages, add_generation_prompt)
        marked, markers = self._program.render_marked(dialog, now=self._now)
        rendering = markers.read(marked, place=place)
        if rendering.text != self._program.render(dialog, now=self._now):
            raise InputError(
                f"{place}: looks for special tokens inside messages in a way that cannot be kept "
                "apart from its own; take the special tokens' text out of the messages"
            )
        written = markers.special_texts_in(
            rendering.text[piece.start : piece.end]
            for piece in rendering.pieces
            if piece.token is None
        )
        for special in sorted(written):
            if not any(special in text for text in texts_of(dialog)):
                raise InputError(
                    f"{place}: puts the special token {special} together from parts, which a "
                    "message could forge; write it whole in the template"
                )
        return rendering

    def assistant_spans(self, rendering: Rendering) -> Sequence[tuple[int, int]]:
        """The characters (start, end) of `rendering` that the assistant says.

        Raises:
          InputError: the template marks none, and its prefixes are not prefixes of the whole.
        """
        if self._program.has_generation_tag:
            return rendering.generated
        spans = []
        for index, message in enumerate(self._messages):
            if message["role"] != "assistant":
                continue
            if index == 0:
                raise InputError(self._no_mask(index, "comes first, so nothing prompts it"))
            before = self._text(self._messages[:index], True)
            after = self._text(self._messages[: index + 1], False)
            if not after.startswith(before):
                raise InputError(self._no_mask(index, "does not begin with its generation prompt"))
            if not rendering.text.startswith(after):
                raise InputError(self._no_mask(index, "changes when later messages follow"))
            spans.append((len(before), _end_of_turn(rendering, len(before), len(after))))
        return spans

    def _text(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        dialog = self._variables(messages, add_generation_prompt)
        return self._program.render(dialog, now=self._now)

    def _variables(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool
    ) -> dict[str, Any]:
        return {
            "messages": messages,
            "tools": self._tools,
            "documents": self._documents,
            "add_generation_prompt": add_generation_prompt,
        }

    def _no_mask(self, index: int, reason: str) -> str:
        return (
            f"{self._program.place}: no loss mask can be made: the assistant's messages[{index}] "
            f"{reason}; put {{% generation %}} around what the assistant says in the template"
        )


def _checked_objects(
    objects: Sequence[Mapping[str, Any]] | None, name: str
) -> list[dict[str, Any]] | None:
    if objects is None:
        return None
    for index, item in enumerate(objects):
        if not isinstance(item, dict) or not is_json_value(item):
            raise InputError(f"{name}[{index}]: must be an object of JSON values")
    return list(objects)


def _end_of_turn(rendering: Rendering, start: int, end: int) -> int:
    """`end`, or where the last special token in the span ends if only white space follows it."""
    ends = [
        piece.end
        for piece in rendering.pieces
        if piece.token is not None and start <= piece.start and piece.end <= end
    ]
    if ends and not rendering.text[ends[-1] : end].strip():
        return ends[-1]
    return end
