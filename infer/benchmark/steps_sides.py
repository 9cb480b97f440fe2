"""The two sides of the steps suite: ours and transformers', doing the same work.

Each side prefills a batch and decodes greedily, and reports seconds for each. transformers gets a
loop of its own here, leaner than its `generate`: no stopping criteria, no logits but the last, no
autograd; with its dynamic and its static cache, scaled dot-product attention, all cores.
"""

import time
from typing import Any, Protocol

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.costs import stored_bytes


class Side(Protocol):
    """Something that generates.

    Attributes:
      name: what the report calls it.
      dtype: of weights and cache.
      weight_bytes: of all weights as they are held.
    """

    name: str
    dtype: str
    weight_bytes: int

    def run(self, prompts: np.ndarray, num_steps: int) -> tuple[float, float]:
        """Seconds to prefill `prompts` int `[B, T]` with one token, and for `num_steps` more."""
        ...


class OurSide:
    """`Generator` as the commands use it, stop ids aside: both sides must do all steps."""

    name = "llama-jax"

    def __init__(self, config: ModelConfig, params: dict[str, Any], *, dtype: str):
        self.dtype = dtype
        self._config, self._params = config, params
        self.weight_bytes = stored_bytes(params)

    def run(self, prompts: np.ndarray, num_steps: int) -> tuple[float, float]:
        from infer.generate import Generator

        generator = Generator(self._config, self._params, eos_ids=frozenset())
        start = time.perf_counter()
        stream = generator.stream(prompts.tolist(), max_new_tokens=1 + num_steps)
        next(stream)
        middle = time.perf_counter()
        for _ in stream:
            pass
        return middle - start, time.perf_counter() - middle


class TransformersSide:
    """`LlamaForCausalLM` of transformers with one kind of cache."""

    def __init__(self, model: Any, *, dtype: str, cache: str):
        """Args: the model, its dtype, and `dynamic` or `static`."""
        self.name = f"transformers, {cache} cache"
        self.dtype = dtype
        self._model, self._cache = model, cache
        # A tied head is one parameter.
        self.weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())

    def run(self, prompts: np.ndarray, num_steps: int) -> tuple[float, float]:
        import torch
        from transformers import DynamicCache, StaticCache

        model = self._model
        if self._cache == "static":
            slots = prompts.shape[1] + num_steps
            cache = StaticCache(config=model.config, max_cache_len=slots)
        else:
            cache = DynamicCache(config=model.config)
        tokens = torch.from_numpy(prompts)

        def step(tokens):
            output = model(tokens, cache=cache, use_cache=True, logits_to_keep=1)
            return output.logits[:, -1].argmax(-1, keepdim=True)

        with torch.inference_mode():
            start = time.perf_counter()
            tokens = step(tokens)
            tokens.tolist()
            middle = time.perf_counter()
            for _ in range(num_steps):
                tokens = step(tokens)
            tokens.tolist()
            return middle - start, time.perf_counter() - middle
