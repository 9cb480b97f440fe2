"""A checkpoint's own Jinja chat template, with Hugging Face's semantics, as a `ChatFormat`.

The rendered text is that of transformers' `apply_chat_template`, with two differences: special
tokens written in messages stay text (`template_markers.py`), and every dialog has a loss mask
(`template_dialog.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from llama_jax.chat.interface import FormattedDialog
from llama_jax.chat.messages import Message
from llama_jax.chat.template_dialog import TemplateDialog, TemplateProgram
from llama_jax.chat.template_tokens import tokens_of, with_loss_mask
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer


class TemplateFormat:
    """A chat template and the tokenizer it is written for (see `interface.py`).

    Attributes:
      name: `template`.
    """

    name = "template"

    def __init__(
        self,
        template: str | Mapping[str, str],
        tokenizer: Tokenizer,
        *,
        variables: Mapping[str, Any] | None = None,
        place: str = "chat template",
        now: Callable[[], datetime] = datetime.now,
    ):
        """
        Args:
          template: Jinja source, or several by name; `tool_use` is taken when there are tools, and
            `default` otherwise.
          tokenizer: its special tokens are what the template's text may turn into.
          variables: what the template is to see besides the dialog: `bos_token`, `eos_token` and
            other special tokens as text, and any option of its own, such as `date_string`.
          place: where the template comes from, for errors.
          now: tells the time to templates that ask for it.

        Raises:
          InputError: the template is not valid, or there is none called `default`.
        """
        sources = {"default": template} if isinstance(template, str) else dict(template)
        if "default" not in sources:
            names = ", ".join(sorted(sources)) or "none"
            raise InputError(f"{place}: has no template called default, only: {names}")
        self._sources, self._variables = sources, dict(variables or {})
        self._programs = {
            name: TemplateProgram(source, tokenizer.special_tokens, self._variables, place)
            for name, source in sources.items()
        }
        self._tokenizer = tokenizer
        self._now = now

    def format_dialog(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
        documents: Sequence[Mapping[str, Any]] | None = None,
    ) -> FormattedDialog:
        """Tokens and loss mask, as `interface.py` says.

        Args:
          documents: passed to the template, which says what it wants in them.
        """
        dialog = self._dialog(messages, tools, documents)
        rendering = dialog.rendering(add_generation_prompt)
        spans = dialog.assistant_spans(rendering)
        return with_loss_mask(rendering, spans, self._tokenizer)

    def encode_prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The tokens for the model to answer, without a loss mask."""
        rendering = self._dialog(messages, tools, documents).rendering(True)
        return [token for ids in tokens_of(rendering, self._tokenizer) for token in ids]

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
        documents: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text that the template writes, special tokens as text."""
        return self._dialog(messages, tools, documents).rendering(add_generation_prompt).text

    def definition(self) -> dict[str, Any]:
        """The templates and what they see; not the time, which is the caller's."""
        return {"name": self.name, "templates": self._sources, "variables": self._variables}

    def _dialog(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
    ) -> TemplateDialog:
        has_own = tools is not None and "tool_use" in self._programs
        program = self._programs["tool_use" if has_own else "default"]
        return TemplateDialog(program, messages, tools, documents, now=self._now())
