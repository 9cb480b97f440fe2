"""Batched generation: prompts of different lengths in, tokens out, a few compiled programs in all.

Rows are padded on the left to a shared length, so that every row writes the same cache slot at each
step: an in-place update, where ragged rows would need a scatter. The length is taken from a short
ladder (64, 128, 192, 256, 384, 512, then multiples of 512), and so is the size of the cache.
Padding is masked and shifts no position: the ladder never shows in the result. A long prompt is
prefilled 512 tokens at a time, which bounds the memory of attention and compiles one program for
all lengths. Between two calls of the decoding loop (`decode_loop.py`) the host hands out tokens.

B rows, T prompt tokens (padded).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from infer.check_prompts import check_prompts
from infer.decode_loop import NO_TOKEN, DecodeState, decode, prefill, start
from infer.sampling import GREEDY, NOT_FINITE, SamplingParameters, stack_sampling
from llama_jax.config import DynamicNtkScaling, ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.select import inference_operators
from llama_jax.model import Operators, Params, init_cache

PREFILL_CHUNK = 512
_LADDER = (64, 128, 192, 256, 384, PREFILL_CHUNK)


@dataclass
class Completion:
    """The answer to one prompt.

    Attributes:
      tokens: the new ids, without the one that stopped it.
      finish_reason: "stop" when an end-of-text id came, "length" when the row's limit did.
      stop_token: the id that stopped it, or None.
    """

    tokens: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    stop_token: int | None = None


class Generator:
    """A model that answers batches of prompts, given and returned as token ids."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        *,
        eos_ids: frozenset[int],
        vocab_size: int | None = None,
        cache_dtype: Any = None,
        decode_steps: int = 16,
        prefill_operators: Operators | None = None,
        decode_operators: Operators | None = None,
    ):
        """
        Args:
          params: weights with unstacked blocks, see `llama_jax.unstack_blocks`.
          eos_ids: ids that end an answer; may be empty.
          vocab_size: only ids under it are chosen, such as the tokenizer's; by default the model's.
          cache_dtype: of keys and values; the weights' own by default.
          decode_steps: tokens per row between two visits of the host.
          prefill_operators, decode_operators: for prompts, and for one token a row; by default
            those for this machine's devices.
        """
        here = jax.local_devices()[0]
        of_prefill, of_decoding = inference_operators(here.platform, here.device_kind)
        self.config = config
        self.params = params
        self.eos_ids = eos_ids
        self.vocab_size = vocab_size or config.vocab_size
        self.cache_dtype = cache_dtype or params["embedding"].dtype
        self.decode_steps = decode_steps
        self.prefill_operators = prefill_operators or of_prefill
        self.decode_operators = decode_operators or of_decoding

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: SamplingParameters | Sequence[SamplingParameters] = GREEDY,
    ) -> list[Completion]:
        """One `Completion` per prompt, see `stream` for the arguments and errors."""
        completions = [Completion() for _ in prompts]
        for new_tokens in self.stream(prompts, max_new_tokens=max_new_tokens, sampling=sampling):
            for completion, tokens in zip(completions, new_tokens, strict=True):
                completion.tokens.extend(tokens)
        for completion in completions:
            if completion.tokens[-1] in self.eos_ids:
                completion.stop_token = completion.tokens.pop()
                completion.finish_reason = "stop"
        return completions

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        sampling: SamplingParameters | Sequence[SamplingParameters] = GREEDY,
    ) -> Iterator[list[list[int]]]:
        """Yields each row's new ids as they come, first one, then up to `decode_steps` at a time.

        A row ends with an id of `eos_ids`, which is yielded too, or at its limit; then its lists
        are empty. A row draws the same random numbers whatever the other rows are; its answer is
        the same in float32 (tested), and in bfloat16 up to rounding, which may tip a close choice.

        Args:
          prompts: ids of each row, at least one each.
          max_new_tokens: limit for all rows, or one limit per row.
          sampling: parameters for all rows, or one per row.

        Raises:
          InputError: for no prompt or an empty one, an id outside the vocabulary, or a prompt that
            does not fit into the context together with its new tokens. Nothing is truncated.
            While iterating: for logits that are infinite or NaN.
        """
        num_rows = len(prompts)
        limits = [max_new_tokens] * num_rows if isinstance(max_new_tokens, int) else max_new_tokens
        parameters = (
            [sampling] * num_rows if isinstance(sampling, SamplingParameters) else list(sampling)
        )
        check_prompts(prompts, limits, self.config)
        if len(parameters) != num_rows:
            raise InputError(f"{num_rows} prompts but {len(parameters)} sampling parameters")
        return self._stream(prompts, limits, parameters)

    def _stream(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        parameters: Sequence[SamplingParameters],
    ) -> Iterator[list[list[int]]]:
        num_rows = len(prompts)
        # Rows that only fill the batch up repeat the first prompt and are done from the start.
        filling = _batch_rows(num_rows, self.params["embedding"]) - num_rows
        prompts = [*prompts, *[prompts[0]] * filling]
        limits = np.array([*limits, *[0] * filling], np.int32)
        rows, mode = stack_sampling([*parameters, *[GREEDY] * filling])
        eos_ids = np.array(sorted(self.eos_ids) or [NO_TOKEN], np.int32)

        tokens, first = _left_padded(prompts)
        steps_left = int(limits.max()) - 1
        cache = init_cache(
            self.config, len(prompts), _bucket(tokens.shape[1] + steps_left), self.cache_dtype
        )._replace(first=first)
        *early, last = _chunks(tokens, self.config)
        for chunk in early:
            cache = prefill(
                self.params, chunk, cache, config=self.config, operators=self.prefill_operators
            )
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        state = DecodeState(cache, last[:, -1], lengths, limits, limits == 0)
        step = partial(start, tokens=last, operators=self.prefill_operators)
        while True:
            new_tokens, state = step(
                self.params,
                state,
                rows,
                eos_ids,
                config=self.config,
                vocab_size=self.vocab_size,
                mode=mode,
            )
            new_tokens = np.asarray(new_tokens)
            if np.any(new_tokens == NOT_FINITE):
                raise InputError(
                    f"logits are not finite in {self.params['embedding'].dtype} (it overflows, or "
                    "the weights are damaged): use --dtype bfloat16 or float32"
                )
            yield _lists(new_tokens, num_rows)
            if steps_left == 0 or np.all(state.done):
                return
            num_steps = min(steps_left, self.decode_steps)
            steps_left -= num_steps
            step = partial(
                decode,
                num_steps=num_steps,
                most_steps=self.decode_steps,
                operators=self.decode_operators,
            )


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 `[B, T]` with T from the ladder, and the number of padding slots `[B]`."""
    length = _bucket(max(len(prompt) for prompt in prompts))
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[length - len(prompt) :] = prompt
    return tokens, np.array([length - len(prompt) for prompt in prompts], np.int32)


def _chunks(tokens: np.ndarray, config: ModelConfig) -> list[np.ndarray]:
    """`tokens` `[B, T]` in pieces of `PREFILL_CHUNK` columns."""
    if isinstance(config.rope_scaling, DynamicNtkScaling):
        # Its rotations depend on the length of the whole call, so the prompt stays whole.
        return [tokens]
    return np.split(tokens, range(PREFILL_CHUNK, tokens.shape[1], PREFILL_CHUNK), axis=1)


def _bucket(length: int) -> int:
    """The smallest length of the ladder that is at least `length`."""
    if length > PREFILL_CHUNK:
        return -(-length // PREFILL_CHUNK) * PREFILL_CHUNK
    return next(rung for rung in _LADDER if rung >= length)


def _batch_rows(num_rows: int, weight: jax.Array) -> int:
    """Rows to compute for `num_rows` prompts.

    XLA's CPU backend multiplies one bfloat16 row ten times slower than two: it has no matrix-vector
    product for it (measured with jaxlib 0.10.2: 0.9 GB/s of weights for 1 row, 9 GB/s for 2).
    """
    on_cpu = weight.devices().pop().platform == "cpu"
    return max(num_rows, 2) if on_cpu and weight.dtype == jnp.bfloat16 else num_rows


def _lists(new_tokens: np.ndarray, num_rows: int) -> list[list[int]]:
    """New ids of each real row, from int `[B, steps]` with -1 after the end."""
    return [[token for token in row if token >= 0] for row in new_tokens[:num_rows].tolist()]
