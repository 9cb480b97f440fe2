"""The finite list of an engine's programs, all compiled before the first row.

A call of anything else is an error: nothing is compiled while rows wait. Weights and pages are
arguments. With a mesh, weights and pages are split by the serving rules and everything else lies on
every device, so that each process of a pod can make it and read it.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infer.engine.decode_program import NO_TOKEN, DecodeRows, decode
from infer.engine.prefill_program import prefill, score
from infer.engine.settings import EngineSettings
from infer.sampling import (
    GREEDY,
    MAX_LOGPROBS,
    SamplingMode,
    count_rows,
    full_mask,
    stack_sampling,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Operators, Params, RowPages
from sharding.placement import on_mesh, replicated
from sharding.rules import SERVING


@dataclass(frozen=True)
class PrefillKey:
    """A chunk of this length, with log-probabilities of the prompt or without."""

    length: int
    scored: bool

    def __str__(self) -> str:
        return f"{'score' if self.scored else 'prefill'} of {self.length}"


@dataclass(frozen=True)
class DecodeKey:
    """So many rows, and what is computed to choose their tokens."""

    num_rows: int
    mode: SamplingMode

    def __str__(self) -> str:
        parts = dataclasses.asdict(self.mode)
        computed = [name for name, value in parts.items() if value not in (False, None)]
        return f"decode of {self.num_rows}: {', '.join(computed) or 'greedy'}"


ExecutableKey = PrefillKey | DecodeKey


class Executables:
    """The programs of an engine, by key."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        pages: Any,
        *,
        settings: EngineSettings,
        vocab_size: int,
        prefill_operators: Operators,
        decode_operators: Operators,
        mesh: Mesh | None = None,
    ):
        """
        Args:
          params, pages: arrays or `ShapeDtypeStruct`s, lying where the programs will find them.
        """
        self.config = config
        self.params, self.pages = _shapes((params, pages))
        self.settings = settings
        self.vocab_size = vocab_size
        self.prefill_operators = prefill_operators
        self.decode_operators = decode_operators
        self.mesh = mesh
        self._compiled: dict[ExecutableKey, Any] = {}

    def keys(self) -> list[ExecutableKey]:
        """Every program that there is."""
        settings = self.settings
        scored = (False, True) if settings.prompt_logprobs else (False,)
        return [
            *(PrefillKey(length, kind) for length in settings.prefill_lengths for kind in scored),
            *(DecodeKey(rows, mode) for mode in settings.modes for rows in settings.row_buckets),
        ]

    def compile(self, say: Callable[[str], None] = lambda line: None, *, threads: int = 4) -> None:
        """Compiles what is not compiled yet, several at a time.

        Args:
          say: is told each program as it is done.
        """
        missing = [key for key in self.keys() if key not in self._compiled]
        with ThreadPoolExecutor(threads) as pool:
            # Tracing is Python and goes one by one; compiling is not and overlaps with it.
            futures = {key: pool.submit(self.lower(key).compile) for key in missing}
            for number, (key, future) in enumerate(futures.items(), 1):
                self._compiled[key] = future.result()
                say(f"compiled {number} of {len(missing)}: {key}")

    def lower(self, key: ExecutableKey) -> jax.stages.Lowered:
        """The program of `key` for the devices that weights and pages lie on."""
        out_shardings = jax.tree.map(lambda leaf: leaf.sharding, self.pages)
        if isinstance(key, DecodeKey) or key.scored:
            out_shardings = (self._everywhere(), out_shardings)
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._everywhere()),
            self._examples(key),
        )
        with on_mesh(self.mesh, SERVING) if self.mesh else contextlib.nullcontext():
            jitted = jax.jit(self._function(key), donate_argnums=1, out_shardings=out_shardings)
            traced = jitted.trace(self.params, self.pages, *arguments)
            return traced.lower(lowering_platforms=(self._platform(),))

    def __call__(self, key: ExecutableKey, params: Params, pages: Any, *arguments: Any) -> Any:
        """Runs a program; `pages` are donated.

        Raises:
          RuntimeError: it was not compiled.
        """
        if key not in self._compiled:
            raise RuntimeError(f"not compiled before the first row: {key}")
        if self.mesh is not None:
            arguments = jax.device_put(arguments, self._everywhere())
        return self._compiled[key](params, pages, *arguments)

    def decode_mode(self, modes: list[SamplingMode]) -> SamplingMode:
        """The first compiled mode that serves rows of all `modes`.

        Raises:
          InputError: there is none.
        """
        needed = functools.reduce(SamplingMode.__or__, modes)
        for mode in self.settings.modes:
            if mode.covers(needed):
                return mode
        raise InputError(
            f"this needs {needed}, which the engine was not compiled for: see its settings"
        )

    def _function(self, key: ExecutableKey) -> Callable:
        if isinstance(key, DecodeKey):
            return functools.partial(
                decode,
                config=self.config,
                vocab_size=self.vocab_size,
                operators=self.decode_operators,
                mode=key.mode,
            )
        if key.scored:
            return functools.partial(
                score,
                config=self.config,
                vocab_size=self.vocab_size,
                num_top=MAX_LOGPROBS,
                operators=self.prefill_operators,
            )
        return functools.partial(prefill, config=self.config, operators=self.prefill_operators)

    def _examples(self, key: ExecutableKey) -> tuple[Any, ...]:
        """Arguments of a program after weights and pages, in their shapes and dtypes."""
        settings = self.settings
        if isinstance(key, DecodeKey):
            one = np.int32(1)
            return empty_decode_rows(key, settings, self.vocab_size), one, one
        num_rows = settings.prefill_tokens // key.length
        tokens = np.zeros((num_rows, key.length), np.int32)
        targets = (tokens,) if key.scored else ()
        return tokens, empty_rows(num_rows, settings), *targets

    def _everywhere(self):
        """The sharding of what lies whole on every device; None without a mesh."""
        return None if self.mesh is None else replicated(self.mesh)

    def _platform(self) -> str:
        sharding = jax.tree.leaves(self.params)[0].sharding
        platform = next(iter(sharding.device_set)).platform
        return "cuda" if platform == "gpu" else platform


def empty_rows(num_rows: int, settings: EngineSettings) -> RowPages:
    """Rows that are not in use, as numpy arrays."""
    zeros = np.zeros(num_rows, np.int32)
    table = np.zeros((num_rows, settings.pages_per_row), np.int32)
    return RowPages(table, lengths=zeros.copy(), first_new=zeros.copy())


def empty_decode_rows(key: DecodeKey, settings: EngineSettings, vocab_size: int) -> DecodeRows:
    """Rows that are not in use, as numpy arrays."""
    num_rows, mode = key.num_rows, key.mode
    zeros = np.zeros(num_rows, np.int32)
    return DecodeRows(
        page_table=np.zeros((num_rows, settings.pages_per_row), np.int32),
        tokens=zeros.copy(),
        lengths=zeros.copy(),
        limits=zeros.copy(),
        least=zeros.copy(),
        stop_ids=np.full((num_rows, settings.max_stop_ids), NO_TOKEN, np.int32),
        forced=np.full((num_rows, settings.decode_steps), NO_TOKEN, np.int32),
        sampling=stack_sampling([GREEDY] * num_rows, mode)[0],
        counts=count_rows([()] * num_rows, [()] * num_rows, vocab_size=vocab_size)
        if mode.penalties
        else None,
        mask=np.tile(full_mask(vocab_size), (num_rows, 1)) if mode.mask else None,
    )


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )
