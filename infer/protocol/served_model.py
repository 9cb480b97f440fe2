"""What parsing a request needs to know of the model that will answer it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from infer.sampling import SamplingParameters
from llama_jax.chat import ChatFormat, Message
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.token_bytes import TokenBytes

if TYPE_CHECKING:
    from infer.constraints import GrammarCompiler
    from infer.loaded_model import LoadedModel


@dataclass(frozen=True)
class ServedModel:
    """The text side of a model behind an engine.

    Attributes:
      names: what a request may call it; the first is what responses say.
      tokenizer: text to ids and back.
      chat_format: None for a base model, which takes no chat requests.
      begins_with_bos: whether plain text is preceded by `tokenizer.bos_id`.
      eos_ids: ids that end an answer.
      sampling: the checkpoint's own defaults, which hold where a request says nothing.
      max_length: of prompt and answer together, in tokens.
    """

    names: tuple[str, ...]
    tokenizer: Tokenizer
    chat_format: ChatFormat | None
    begins_with_bos: bool
    eos_ids: frozenset[int]
    sampling: SamplingParameters
    max_length: int

    @classmethod
    def of(
        cls, loaded: "LoadedModel", *, names: tuple[str, ...], max_length: int | None = None
    ) -> "ServedModel":
        """Of a loaded checkpoint.

        Args:
          names: at least one.
          max_length: the engine's limit, where it is under the model's context.
        """
        return cls(
            names=names,
            tokenizer=loaded.tokenizer,
            chat_format=loaded.chat_format,
            begins_with_bos=loaded.begins_with_bos,
            eos_ids=loaded.eos_ids,
            sampling=loaded.sampling,
            max_length=loaded.config.context_length if max_length is None else max_length,
        )

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the chat format tells the model of tools: many templates ignore them."""
        assert self.chat_format is not None
        messages = [Message("user", "?")]
        tool = {"type": "function", "function": {"name": "probe", "parameters": {}}}
        without = self.chat_format.encode_prompt(messages)
        return self.chat_format.encode_prompt(messages, tools=[tool]) != without

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes of single tokens; one for all requests, because it keeps what it looked up."""
        return TokenBytes(self.tokenizer)

    @cached_property
    def grammars(self) -> "GrammarCompiler":
        """Made on first use: it reads the whole vocabulary."""
        from infer.constraints import GrammarCompiler

        return GrammarCompiler(self.tokenizer, self.eos_ids)
