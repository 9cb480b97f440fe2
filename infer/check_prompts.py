"""What a batch of prompts must be before any of it is computed."""

from collections.abc import Sequence

from llama_jax.config import ModelConfig
from llama_jax.errors import InputError


def check_prompts(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], config: ModelConfig
) -> None:
    """Raises `InputError` for what `Generator.stream` refuses."""
    if not prompts:
        raise InputError("no prompt given")
    if len(limits) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(limits)} values of max_new_tokens")
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if limit < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {limit}")
        if len(prompt) == 0:
            raise InputError(f"prompt {index + 1} is empty: give at least one token")
        if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
            raise InputError(
                f"prompt {index + 1} has an id outside the vocabulary of {config.vocab_size}: "
                "is the tokenizer of another model?"
            )
        if len(prompt) + limit > config.context_length:
            raise InputError(
                f"prompt {index + 1} has {len(prompt)} tokens and asks for {limit} new ones, over "
                f"the context of {config.context_length}: shorten it or lower max_new_tokens"
            )
