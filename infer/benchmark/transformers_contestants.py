"""transformers in the offline comparison: `generate` on static batches, and continuous batching.

`generate` gets its prompts sorted by length, so that a batch pads little, and is asked for exactly
the new tokens of the workload. Continuous batching is the library's own scheduler over a paged
cache (`generate_batch`), with scaled dot-product attention, since its flash kernels want a GPU.
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from infer.benchmark.contestant import Outcome
from infer.benchmark.workload import Workload

# Where the workload's lengths differ, this many tokens are enough to touch all memory.
_WARM_UP_TOKENS = 2


def load_transformers(folder: Path, dtype: str) -> Any:
    """The model in the Hugging Face folder, on all cores of this process."""
    import torch
    from transformers import AutoModelForCausalLM, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    return model.eval()


def _weight_bytes(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())  # a tied head is one


class Generate:
    """`model.generate`, batch after batch."""

    def __init__(self, folder: Path, dtype: str):
        self._model = load_transformers(folder, dtype)
        self.weight_bytes = _weight_bytes(self._model)

    def warm_up(self, workload: Workload) -> None:
        short = dataclasses.replace(workload, new_tokens=_WARM_UP_TOKENS)
        self.run(short, batch_size=len(workload.prompts), cache="dynamic")

    def run(self, workload: Workload, *, batch_size: int, cache: str) -> Outcome:
        """`cache` is `dynamic` or `static`, `cache_implementation` of `generate`."""
        import torch

        config = _greedy_config(workload.new_tokens, cache_implementation=cache)
        start = time.perf_counter()
        order = sorted(range(len(workload.prompts)), key=lambda i: len(workload.prompts[i]))
        results: list[list[int]] = [[] for _ in order]
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            longest = max(len(workload.prompts[row]) for row in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                prompt = workload.prompts[row]
                ids[i, longest - len(prompt) :] = torch.tensor(prompt)
                mask[i, longest - len(prompt) :] = 1
            with torch.inference_mode():
                output = self._model.generate(ids, attention_mask=mask, generation_config=config)
            for row, new in zip(rows, output[:, longest:].tolist(), strict=True):
                results[row] = new
        return Outcome(time.perf_counter() - start, results)


class ContinuousBatching:
    """`model.generate_batch`, the whole workload at once."""

    def __init__(self, folder: Path, dtype: str):
        self._model = load_transformers(folder, dtype)
        self.weight_bytes = _weight_bytes(self._model)

    def warm_up(self, workload: Workload) -> None:
        self.run(dataclasses.replace(workload, new_tokens=_WARM_UP_TOKENS), page_size=256)

    def run(self, workload: Workload, *, page_size: int, batch_tokens: int = 512) -> Outcome:
        """`page_size` and `max_batch_tokens` of its `ContinuousBatchingConfig`."""
        from transformers import ContinuousBatchingConfig

        new_tokens = workload.new_tokens
        # As many pages as the rows can fill, and one to spare for each.
        blocks = sum(2 + (len(prompt) + new_tokens) // page_size for prompt in workload.prompts)
        batching = ContinuousBatchingConfig(
            page_size=page_size,
            num_blocks=blocks,
            max_batch_tokens=batch_tokens,
            max_requests_per_batch=len(workload.prompts),
            allow_block_sharing=False,
        )
        start = time.perf_counter()
        answers = self._model.generate_batch(
            [list(prompt) for prompt in workload.prompts],
            # It says None with -1, and complains of None.
            generation_config=_greedy_config(new_tokens, eos_token_id=-1),
            continuous_batching_config=batching,
        )
        seconds = time.perf_counter() - start
        if errors := [answer.error for answer in answers.values() if answer.error is not None]:
            raise RuntimeError(errors[0])
        tokens = [answer.generated_tokens for answer in answers.values()]
        if [len(row) for row in tokens] != [new_tokens] * len(workload.prompts):
            raise RuntimeError(f"{len(tokens)} answers of {[len(row) for row in tokens]} tokens")
        return Outcome(seconds, tokens)


def _greedy_config(new_tokens: int, **fields: Any) -> Any:
    """Of the model's own settings nothing may stop a row or change a choice."""
    from transformers import GenerationConfig

    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return GenerationConfig(max_new_tokens=new_tokens, **settings | fields)
