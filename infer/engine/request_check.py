"""Whether an engine of some size could ever answer a request."""

from infer.engine.request import Request
from infer.engine.settings import EngineSettings
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError


def check_request(
    request: Request, config: ModelConfig, settings: EngineSettings, vocab_size: int
) -> None:
    """Raises `InputError` for an id outside the vocabulary, for what is longer than a row or than
    all pages, and for what no program of the engine computes."""
    if not 0 <= min(request.prompt) <= max(request.prompt) < config.vocab_size:
        raise InputError(
            f"the prompt has an id outside the vocabulary of {config.vocab_size}: is the "
            "tokenizer of another model?"
        )
    # Guesses are written too, behind the last token.
    most_tokens = settings.max_length - settings.num_drafts
    num_tokens = len(request.prompt) + request.max_new_tokens
    if num_tokens > most_tokens:
        raise InputError(
            f"the prompt has {len(request.prompt)} tokens and asks for "
            f"{request.max_new_tokens} new ones, over the {most_tokens} that a row may "
            "have: shorten it or ask for fewer"
        )
    num_pages = settings.pages_for(num_tokens + settings.num_drafts)
    if num_pages > settings.num_pages:
        raise InputError(
            f"{num_tokens} tokens take {num_pages} pages, and there are {settings.num_pages}: "
            "ask for fewer tokens, or give the engine more memory"
        )
    if len(request.stop_ids) > settings.max_stop_ids:
        raise InputError(
            f"{len(request.stop_ids)} stop ids, and the most is {settings.max_stop_ids}"
        )
    if request.num_prompt_logprobs is not None and not settings.prompt_logprobs:
        raise InputError(
            "log-probabilities of prompts are not among the engine's programs: start the server "
            "with --prompt-logprobs, or an engine with prompt_logprobs=True"
        )
    sampling = request.sampling
    chosen = [*(token for token, _ in sampling.logit_bias), *(sampling.allowed_ids or ())]
    if chosen and max(chosen) >= vocab_size:
        raise InputError(
            f"logit_bias and allowed_ids name the id {max(chosen)}, and the ids that can be chosen "
            f"end at {vocab_size - 1}"
        )
