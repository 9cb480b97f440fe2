"""Llama 3.1's chat format, token for token as Meta's `ChatFormat` (llama-models 0.3.0).

    <|begin_of_text|>
    <|start_header_id|>ROLE<|end_header_id|>\\n\\nCONTENT<|eot_id|>      once a message

The line breaks above are not in the format. Special tokens are put in by id and text is encoded
with special tokens off, so no message can forge a header. Content is not stripped; Meta's does not
either. An assistant message ends in `<|eom_id|>` when it waits for a tool, and begins with
`<|python_tag|>` when it is code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_jax.chat.interface import FormattedDialog
from llama_jax.chat.messages import Message, StopReason
from llama_jax.chat.tool_call_texts import (
    ToolPromptFormat,
    check_tool_prompt_format,
    tool_call_texts,
)
from llama_jax.chat.tool_calls import parse_tool_calls
from llama_jax.chat.tool_definitions import (
    environment_text,
    function_tag_tools_text,
    json_tools_text,
    python_list_tools_text,
)
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)


class Llama31Format:
    """Llama 3.1 and 3.2's `ChatFormat` (see `interface.py`).

    Attributes:
      name: `llama31`.
    """

    name = "llama31"

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        tool_prompt_format: ToolPromptFormat = "json",
        builtin_tools: Sequence[str] = (),
        today: str | None = None,
        python_tag_before_builtin_calls: bool = False,
    ):
        """
        Args:
          tokenizer: has the tokens `SPECIAL_TOKENS`.
          tool_prompt_format: how custom tools are offered and called: `json` and `function_tag` are
            Llama 3.1's, `python_list` is Llama 3.2's.
          builtin_tools: built-in tools to turn on, in every dialog, through the system message.
          today: a date for that system message and for the one that goes with custom tools.
          python_tag_before_builtin_calls: write `<|python_tag|>` before a search call too, as the
            published prompt format has it and as the models do. Meta's `ChatFormat` writes it
            before code only, and that is the default.

        Raises:
          InputError: the tokenizer lacks one of the special tokens, or an argument is unknown.
        """
        for text in SPECIAL_TOKENS:
            if text not in tokenizer.special_tokens:
                raise InputError(f"tokenizer: has no token {text}, which Llama 3.1's format needs")
        check_tool_prompt_format(tool_prompt_format)
        environment_text(builtin_tools)
        self._tokenizer = tokenizer
        self._tool_prompt_format = tool_prompt_format
        self._builtin_tools = tuple(builtin_tools)
        self._today = today
        self._python_tag_before_builtin_calls = python_tag_before_builtin_calls

    def format_dialog(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> FormattedDialog:
        """Tokens and loss mask, as `ChatFormat.format_dialog` in `interface.py` says."""
        if not messages:
            raise InputError("messages: the dialog is empty")
        tokens = [self._tokenizer.special_tokens["<|begin_of_text|>"]]
        loss_mask = [0]
        for message in self._with_tools(messages, tools or ()):
            header, body = self._header(message.role), self._body(message)
            tokens += header + body
            loss_mask += [0] * len(header) + [int(message.role == "assistant")] * len(body)
        if add_generation_prompt:
            header = self._header("assistant")
            tokens += header
            loss_mask += [0] * len(header)
        return FormattedDialog(tuple(tokens), tuple(loss_mask))

    def encode_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The tokens for the model to answer."""
        return list(self.format_dialog(messages, tools=tools, add_generation_prompt=True).tokens)

    def encode_message(self, message: Message) -> list[int]:
        """One message: header, content, tool calls, end token."""
        return self._header(message.role) + self._body(message)

    def decode_assistant_message(self, tokens: Sequence[int]) -> Message:
        """The message in what the model generated after an assistant header.

        `<|python_tag|>` and the end token count only as ids; their text is text. Without an end
        token (generation was cut off) the stop reason is `end_of_turn`.
        """
        special = self._tokenizer.special_tokens
        tokens = list(tokens)
        stop_reason: StopReason = "end_of_turn"
        if tokens and tokens[-1] in (special["<|eot_id|>"], special["<|eom_id|>"]):
            if tokens.pop() == special["<|eom_id|>"]:
                stop_reason = "end_of_message"
        python_tag = bool(tokens) and tokens[0] == special["<|python_tag|>"]
        text = self._tokenizer.decode(tokens[1:] if python_tag else tokens)
        content, calls = parse_tool_calls(text, python_tag=python_tag)
        return Message("assistant", content, calls, stop_reason)

    def definition(self) -> dict[str, Any]:
        """The arguments; the format itself has a name."""
        return {
            "name": self.name,
            "tool_prompt_format": self._tool_prompt_format,
            "builtin_tools": list(self._builtin_tools),
            "today": self._today,
            "python_tag_before_builtin_calls": self._python_tag_before_builtin_calls,
        }

    def _header(self, role: str) -> list[int]:
        special = self._tokenizer.special_tokens
        return [
            special["<|start_header_id|>"],
            *self._tokenizer.encode("ipython" if role == "tool" else role),
            special["<|end_header_id|>"],
            *self._tokenizer.encode("\n\n"),
        ]

    def _body(self, message: Message) -> list[int]:
        special = self._tokenizer.special_tokens
        tokens = []
        if message.tool_calls and self._has_python_tag(message.tool_calls[0].name):
            tokens.append(special["<|python_tag|>"])
        # Meta encodes content and calls one by one; joined, their edges could merge into one token.
        call_texts = tool_call_texts(message.tool_calls, self._tool_prompt_format)
        for text in (message.content, *call_texts):
            tokens += self._tokenizer.encode(text)
        ends_message = message.stop_reason == "end_of_message"
        tokens.append(special["<|eom_id|>" if ends_message else "<|eot_id|>"])
        return tokens

    def _has_python_tag(self, first_tool: str) -> bool:
        if first_tool in ("brave_search", "wolfram_alpha", "photogen"):
            return self._python_tag_before_builtin_calls
        return first_tool == "code_interpreter"

    def _with_tools(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> list[Message]:
        """The dialog with what tells the model of its tools: nothing when there are none."""
        if not tools and not self._builtin_tools:
            return list(messages)
        messages = list(messages)
        system = messages.pop(0).content if messages[0].role == "system" else ""
        if tools and self._tool_prompt_format == "python_list":
            # Llama 3.2 takes its functions in the system message and needs no environment for them.
            system = python_list_tools_text(tools) + (f"\n\n{system}" if system else "")
            if not self._builtin_tools:
                return [Message("system", system), *messages]
        opening = [
            Message(
                "system", environment_text(self._builtin_tools, today=self._today, system=system)
            )
        ]
        if tools and self._tool_prompt_format == "json":
            opening.append(Message("user", json_tools_text(tools)))
        if tools and self._tool_prompt_format == "function_tag":
            opening.append(Message("user", function_tag_tools_text(tools)))
        return opening + messages
