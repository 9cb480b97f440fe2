"""llama.cpp in the offline comparison, through the `llama-cpp-python` package's C interface.

All rows at once: one sequence a prompt, prompts in batches of at most `n_batch` tokens, then one
token of every sequence a call. (The package's own `Llama` answers one prompt at a time.) The
greedy choice is NumPy's argmax over the logits that llama.cpp hands out.
"""

import ctypes
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from infer.benchmark.contestant import Outcome
from infer.benchmark.workload import Workload

_BATCH_TOKENS = 2048


class LlamaCpp:
    """A GGUF file in llama.cpp on all cores of this process."""

    def __init__(self, path: Path):
        import llama_cpp

        self._library = library = llama_cpp
        # Its progress report goes to stderr line by line; errors come back as return codes.
        self._silence = library.llama_log_callback(lambda level, text, data: None)
        library.llama_log_set(self._silence, ctypes.c_void_p(0))
        library.llama_backend_init()
        parameters = library.llama_model_default_params()
        self._model = library.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path.name}")
        vocabulary = library.llama_model_get_vocab(self._model)
        self._vocab_size = library.llama_vocab_n_tokens(vocabulary)
        self.weight_bytes = library.llama_model_size(self._model)

    def warm_up(self, workload: Workload) -> None:
        self.run(dataclasses.replace(workload, new_tokens=2))

    def run(self, workload: Workload, **variant: Any) -> Outcome:
        """See `_context` for the variants; making one, which allocates the cache, is not timed."""
        rows = len(workload.prompts)
        longest = max(map(len, workload.prompts)) + workload.new_tokens
        context = self._context(rows, longest, **variant)
        batch = self._library.llama_batch_init(_BATCH_TOKENS, 0, 1)
        start = time.perf_counter()
        newest = self._prefill(context, batch, workload)
        tokens = [newest]
        for step in range(workload.new_tokens - 1):
            batch.n_tokens = rows
            for row, prompt in enumerate(workload.prompts):
                _place(batch, row, newest[row], len(prompt) + step, row, True)
            tokens.append(newest := self._decode(context, batch, rows))
        seconds = time.perf_counter() - start
        self._library.llama_batch_free(batch)
        self._library.llama_free(context)
        return Outcome(seconds, np.stack(tokens, axis=1).tolist())

    def _context(
        self,
        rows: int,
        longest: int,
        *,
        unified: bool = False,
        flash: bool = True,
        cache: str = "float32",
        micro_batch: int = 512,
    ) -> Any:
        """Args:
        unified: one pool of cells for all sequences, instead of a stream for each.
        flash: llama.cpp's flash attention.
        cache: dtype of keys and values, float32 or float16.
        micro_batch: tokens that are computed at once.
        """
        library = self._library
        parameters = library.llama_context_default_params()
        parameters.n_ctx = rows * -(-longest // 256) * 256
        parameters.n_seq_max = rows
        parameters.n_batch, parameters.n_ubatch = _BATCH_TOKENS, micro_batch
        parameters.n_threads = parameters.n_threads_batch = len(os.sched_getaffinity(0))
        parameters.kv_unified = unified
        parameters.flash_attn_type = int(flash)
        kinds = {"float32": library.GGML_TYPE_F32, "float16": library.GGML_TYPE_F16}
        parameters.type_k = parameters.type_v = kinds[cache]
        context = library.llama_init_from_model(self._model, parameters)
        if not context:
            raise RuntimeError("llama.cpp cannot make a context")
        return context

    def _prefill(self, context: Any, batch: Any, workload: Workload) -> np.ndarray:
        """The first new token of each prompt, int `[rows]`."""
        first = np.empty(len(workload.prompts), np.int64)
        finishing: list[int] = []  # rows whose last prompt token is in the batch, in its order
        batch.n_tokens = 0
        for row, prompt in enumerate(workload.prompts):
            for position, token in enumerate(prompt):
                if batch.n_tokens == _BATCH_TOKENS:
                    first[finishing] = self._decode(context, batch, len(finishing))
                    finishing.clear()
                    batch.n_tokens = 0
                is_last = position == len(prompt) - 1
                _place(batch, batch.n_tokens, token, position, row, is_last)
                batch.n_tokens += 1
                if is_last:
                    finishing.append(row)
        first[finishing] = self._decode(context, batch, len(finishing))
        return first

    def _decode(self, context: Any, batch: Any, num_outputs: int) -> np.ndarray:
        """Computes the batch: the likeliest token after each of its outputs, in its order."""
        code = self._library.llama_decode(context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        if not num_outputs:
            return np.empty(0, np.int64)
        logits = self._library.llama_get_logits(context)
        return np.ctypeslib.as_array(logits, (num_outputs, self._vocab_size)).argmax(-1)


def _place(batch: Any, slot: int, token: int, position: int, row: int, is_output: bool) -> None:
    batch.token[slot] = int(token)
    batch.pos[slot] = position
    batch.n_seq_id[slot] = 1
    batch.seq_id[slot][0] = row
    batch.logits[slot] = is_output
