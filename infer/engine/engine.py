"""The engine: rows in, tokens out, until nobody waits.

One `step` admits rows, computes chunks of prompts, decodes a few tokens of every row that is ready,
and says what came of it. What a row gets depends on its request alone: every product has the same
shape whoever else is there, attention walks each row's own pages, random numbers are counted by the
row's seed and position, and what is computed again is computed by the same programs.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infer.engine.arguments import decode_rows, prefill_rows
from infer.engine.decode_rows import Decoded
from infer.engine.executable_keys import PrefillKey
from infer.engine.executables import Executables
from infer.engine.outcome import take_prompt_logprobs, take_tokens
from infer.engine.request import Progress, Request
from infer.engine.request_check import check_request
from infer.engine.row import Row, mode_of
from infer.engine.scheduler import Scheduler
from infer.engine.settings import EngineSettings
from infer.engine.usage import EngineUsage
from infer.engine.weights import Weights, empty_pools
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.select import inference_operators
from llama_jax.model import Operators, Params
from sharding.sharded_operators import shard_paged_operators


class Engine:
    """Answers requests, many at once. Not for several threads."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        settings: EngineSettings,
        *,
        draft_params: Params | None = None,
        vocab_size: int | None = None,
        prefill_operators: Operators | None = None,
        decode_operators: Operators | None = None,
        mesh: Mesh | None = None,
    ):
        """
        Args:
          params: weights with unstacked blocks, see `llama_jax.unstack_blocks`; on a mesh, lying as
            the serving rules say.
          draft_params: of the model of `settings.speculation.draft_config`, likewise.
          vocab_size: only ids under it are chosen, such as the tokenizer's; by default the model's.
          prefill_operators, decode_operators: of one device, by default of this machine's.
          mesh: the devices, see `sharding/serving_mesh.py`. Each process of a pod makes the same
            calls in the same order, and is told the same.

        Raises:
          InputError: the model's context is shorter than `settings.max_length`.
        """
        if settings.max_length > config.context_length:
            raise InputError(
                f"max_length {settings.max_length} is over the model's context of "
                f"{config.context_length}: lower it"
            )
        self.config = config
        self._weights = Weights(params, draft_params)
        self.settings = settings
        self.vocab_size = vocab_size or config.vocab_size
        self._scheduler = Scheduler(settings)
        self._pools = empty_pools(config, settings, params["embedding"].dtype, mesh)
        here = jax.local_devices()[0]
        operators = inference_operators(here.platform, here.device_kind)
        of_prompts = prefill_operators or operators[0]
        of_decoding = decode_operators or operators[1]
        if mesh is not None:
            of_prompts = shard_paged_operators(of_prompts, mesh)
            of_decoding = shard_paged_operators(of_decoding, mesh)
        self._executables = Executables(
            config,
            self._weights,
            self._pools,
            settings=settings,
            vocab_size=self.vocab_size,
            prefill_operators=of_prompts,
            decode_operators=of_decoding,
            mesh=mesh,
        )
        self._rows: dict[int, Row] = {}
        self._next_id = 0
        self._progress: list[Progress] = []
        self._num_prompt_tokens = self._num_new_tokens = self._num_steps = 0

    def compile(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Compiles every program there is, before the first `step`: see `Executables.compile`."""
        self._executables.compile(say)

    def add(self, request: Request) -> int:
        """Puts a request in line and returns its id, by which `step` speaks of it.

        Raises:
          InputError: it could never be answered: an id outside the vocabulary, longer than a row or
            than all pages, or in need of a program that is not among the engine's.
        """
        check_request(request, self.config, self.settings, self.vocab_size)
        self._executables.decode_key(1, [mode_of(request)], token_by_token=False)
        request_id, self._next_id = self._next_id, self._next_id + 1
        row = Row(
            request_id, request, mode_of(request), request.constraint and request.constraint()
        )
        self._rows[request_id] = row
        self._scheduler.add(row)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Forgets a request, if it is not over; nothing more will be said of it."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._scheduler.remove(row)

    @property
    def arrays(self) -> Any:
        """All that lies on the devices: weights and pages."""
        return self._weights, self._pools

    @property
    def is_idle(self) -> bool:
        """Whether every request is over."""
        return not self._rows

    def usage(self) -> EngineUsage:
        """How busy it is."""
        scheduler, pool = self._scheduler, self._scheduler.pool
        return EngineUsage(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            pages_used=pool.num_used,
            pages_kept=pool.num_kept,
            num_pages=pool.num_pages,
            preemptions=scheduler.num_preemptions,
            shared_tokens=scheduler.num_shared_tokens,
            prompt_tokens=self._num_prompt_tokens,
            new_tokens=self._num_new_tokens,
            decode_steps=self._num_steps,
        )

    def step(self) -> list[Progress]:
        """Computes some prompts and some tokens; what is new, in order of the requests' ids."""
        self._progress = []
        for _ in range(self.settings.prefill_calls):
            self._scheduler.admit()
            if not self._prefill():
                break
        self._decode()
        return sorted(self._progress, key=lambda progress: progress.request_id)

    def _prefill(self) -> bool:
        """One chunk of as many prompts as fit; False if no prompt is left to compute."""
        rows = self._scheduler.prefilling()
        if not rows:
            return False
        # Those of one length of chunk, and of one kind, go together with the first in line.
        key = self._prefill_key(rows[0])
        rows = [row for row in rows if self._prefill_key(row) == key]
        rows = rows[: self.settings.prefill_tokens // key.length]
        chunk = prefill_rows(rows, key, self.settings)
        if key.scored:
            scored, self._pools = self._executables(
                key, self._weights, self._pools, chunk.tokens, chunk.rows, chunk.targets
            )
            take_prompt_logprobs(rows, chunk, jax.tree.map(np.asarray, scored))
        else:
            self._pools = self._executables(
                key, self._weights, self._pools, chunk.tokens, chunk.rows
            )
        for row, end in zip(rows, chunk.rows.lengths.tolist(), strict=False):
            self._num_prompt_tokens += end - row.num_cached
            row.num_cached = end
            self._scheduler.name_pages(row)
        return True

    def _prefill_key(self, row: Row) -> PrefillKey:
        length = self.settings.chunk_length(row.num_to_prefill)
        return PrefillKey(length, row.wants_prompt_logprobs)

    def _decode(self) -> None:
        """A few tokens of every row whose prompt is computed."""
        settings = self.settings
        rows = self._scheduler.decoding()
        if not rows:
            return
        # The host has to see each token of a grammar's row before it knows the next mask.
        key = self._executables.decode_key(
            len(rows),
            [row.mode for row in rows],
            token_by_token=any(row.constraint for row in rows),
        )
        arguments = decode_rows(rows, key, settings, self.vocab_size)
        num_known = np.sum(arguments.forced >= 0, axis=1).tolist()
        num_steps = min(
            (known or 1) if row.constraint else settings.decode_steps
            for row, known in zip(rows, num_known, strict=False)
        )
        # Where others wait, a call ends when an eighth of the rows has.
        least_rows = len(rows) - len(rows) // 8 if self._scheduler.waiting else 1
        decoded, self._pools = self._executables(
            key,
            self._weights,
            self._pools,
            arguments,
            np.int32(num_steps),
            np.int32(least_rows),
        )
        decoded = jax.tree.map(np.asarray, decoded)
        self._num_steps += int(decoded.num_steps)
        for index, row in enumerate(rows):
            self._note_tokens(row, index, num_known[index], decoded)

    def _note_tokens(self, row: Row, index: int, num_known: int, decoded: Decoded) -> None:
        """Takes over what a call computed for `row`, of which the first tokens were known."""
        progress = take_tokens(row, index, num_known, decoded)
        if progress is None:
            return
        self._num_new_tokens += len(progress.tokens)
        self._progress.append(progress)
        if progress.finish_reason is not None:
            self._scheduler.remove(self._rows.pop(row.request_id))
