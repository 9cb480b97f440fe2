"""The prompts of a completion request: texts or ids, one or several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infer.protocol.body_fields import BodyFields
from infer.protocol.parsed_request import EchoedPrompt
from infer.protocol.request_error import RequestError
from infer.protocol.served_model import ServedModel
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

MAX_PROMPTS = 2048


@dataclass(frozen=True)
class CompletionPrompts:
    """Attributes:
    ids: of each prompt.
    given: each prompt's text as it was given, BOS before it as `bos` says; None for prompts of ids.
    bos: the text of BOS if it was put before texts.
    model: that they are for.
    """

    ids: tuple[tuple[int, ...], ...]
    given: tuple[str, ...] | None
    bos: str
    model: ServedModel

    def echoed(self, *, skip_special: bool) -> tuple[EchoedPrompt, ...]:
        """What `echo` shows of each prompt."""
        if self.given is None:
            tokenizer = self.model.tokenizer
            texts = [tokenizer.decode(ids, skip_special=skip_special) for ids in self.ids]
        else:
            texts = [text if skip_special else self.bos + text for text in self.given]
        return tuple(
            EchoedPrompt(text, self.model.token_bytes.of(ids[0]))
            for text, ids in zip(texts, self.ids, strict=True)
        )


def completion_prompts(fields: BodyFields, model: ServedModel) -> CompletionPrompts:
    """Reads `prompt`, `add_special_tokens` and `parse_special`."""
    given = fields.take("prompt")
    adds_bos = fields.boolean("add_special_tokens", True) and model.begins_with_bos
    parses_special = fields.take("parse_special")
    if parses_special is not None and not isinstance(parses_special, bool):
        fields.refuse("parse_special", "must be true or false")
    prompts = _prompt_list(fields, given)
    tokenizer = model.tokenizer
    if not isinstance(prompts[0], str):
        for index, prompt in enumerate(prompts):
            for token in prompt:
                # Not `check_integer`, whose message would be made for every id.
                if type(token) is not int or not 0 <= token < tokenizer.vocab_size:
                    place = "prompt" if len(prompts) == 1 else f"prompt[{index}]"
                    fields.refuse(
                        place,
                        f"{str(token)[:40]} is no id of the vocabulary of {tokenizer.vocab_size}",
                    )
        return CompletionPrompts(tuple(map(tuple, prompts)), None, "", model)
    bos_id = tokenizer.bos_id
    bos = next((text for text, token in tokenizer.special_tokens.items() if token == bos_id), "")
    ids = tuple(
        _encoded(fields, text, tokenizer, bos_id if adds_bos else None, parses_special)
        for text in prompts
    )
    return CompletionPrompts(ids, tuple(prompts), bos if adds_bos else "", model)


def _prompt_list(fields: BodyFields, given: Any) -> Sequence[Any]:
    """Prompts all of one kind: texts, or lists."""
    if isinstance(given, str):
        given = [given]
    elif isinstance(given, list) and given and not isinstance(given[0], str | list):
        given = [given]
    if not isinstance(given, list) or not given:
        fields.refuse("prompt", "must be a text, a list of texts, or ids in a list")
    kind = type(given[0])
    if not all(isinstance(prompt, kind) for prompt in given):
        fields.refuse("prompt", "must be all texts or all lists of ids")
    if len(given) > MAX_PROMPTS:
        fields.refuse("prompt", f"has {len(given)} prompts; the most is {MAX_PROMPTS}")
    if kind is str:
        for text in given:
            fields.check_text("prompt", text)
    return given


def _encoded(
    fields: BodyFields,
    text: str,
    tokenizer: Tokenizer,
    bos_id: int | None,
    parses_special: bool | None,
) -> tuple[int, ...]:
    if parses_special is None:
        spelt = next((special for special in tokenizer.special_tokens if special in text), None)
        if spelt is not None:
            fields.refuse(
                "prompt",
                f"spells the special token {spelt}; say with parse_special whether it is meant as "
                "one (true) or as text (false)",
            )
    try:
        ids = tokenizer.encode(text, allow_special=bool(parses_special))
    except InputError as error:
        raise RequestError(f"prompt: {error}", param="prompt") from error
    # A text that begins with BOS as it is spelt needs no second one.
    if bos_id is not None and ids[:1] != [bos_id]:
        ids = [bos_id, *ids]
    return tuple(ids)
