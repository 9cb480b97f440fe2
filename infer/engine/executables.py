"""The finite list of an engine's programs, all compiled before the first row.

A call of anything else is an error: nothing is compiled while rows wait. Weights and pages are
arguments. With a mesh, weights and pages are split by the serving rules and everything else lies on
every device, so that each process of a pod can make it and read it.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infer.engine.arguments import empty_decode_rows, empty_prefill_rows
from infer.engine.decode_program import decode
from infer.engine.executable_keys import DecodeKey, ExecutableKey, PrefillKey
from infer.engine.prefill_program import prefill, score
from infer.engine.settings import EngineSettings
from infer.engine.weights import Pools, Weights
from infer.sampling import (
    MAX_LOGPROBS,
    SamplingMode,
)
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import Operators
from sharding.placement import on_mesh, replicated
from sharding.rules import SERVING


class Executables:
    """The programs of an engine, by key."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        pools: Pools,
        *,
        settings: EngineSettings,
        vocab_size: int,
        prefill_operators: Operators,
        decode_operators: Operators,
        mesh: Mesh | None = None,
    ):
        """
        Args:
          weights, pools: arrays or `ShapeDtypeStruct`s, lying where the programs will find them.
        """
        self.config = config
        self.weights, self.pools = _shapes((weights, pools))
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
            *(
                DecodeKey(num_rows, mode, speculates)
                for mode in settings.modes
                for num_rows in settings.row_buckets
                for speculates in self._ways(mode)
            ),
        ]

    def _ways(self, mode: SamplingMode) -> tuple[bool, ...]:
        """Whether rows of `mode` are decoded with guesses, without, or either."""
        if self.settings.speculation is None or mode.penalties:
            return (False,)
        # A mask may be a grammar's, which has to see each token before the next.
        return (False, True) if mode.mask else (True,)

    def compile(self, say: Callable[[str], None] = lambda line: None, *, threads: int = 4) -> None:
        """Compiles what is not compiled yet, several at a time.

        Args:
          say: is told each program as it is done.
        """
        missing = [key for key in self.keys() if key not in self._compiled]
        with ThreadPoolExecutor(threads) as pool:
            futures = {
                pool.submit(lambda key=key: self.lower(key).compile()): key for key in missing
            }
            for number, future in enumerate(as_completed(futures), 1):
                key = futures[future]
                self._compiled[key] = future.result()
                say(f"compiled {number} of {len(missing)}: {key}")

    def _compile(self, key: ExecutableKey) -> Any:
        return self.lower(key).compile()

    def lower(self, key: ExecutableKey) -> jax.stages.Lowered:
        """The program of `key` for the devices that weights and pages lie on."""
        out_shardings = jax.tree.map(lambda leaf: leaf.sharding, self.pools)
        if isinstance(key, DecodeKey) or key.scored:
            out_shardings = (self._everywhere(), out_shardings)
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._everywhere()),
            self._examples(key),
        )
        with on_mesh(self.mesh, SERVING) if self.mesh else contextlib.nullcontext():
            jitted = jax.jit(self._function(key), donate_argnums=1, out_shardings=out_shardings)
            traced = jitted.trace(self.weights, self.pools, *arguments)
            return traced.lower(lowering_platforms=(self._platform(),))

    def __call__(self, key: ExecutableKey, weights: Weights, pools: Pools, *arguments: Any) -> Any:
        """Runs a program; `pools` are donated.

        Raises:
          RuntimeError: it was not compiled.
        """
        if key not in self._compiled:
            raise RuntimeError(f"not compiled before the first row: {key}")
        if self.mesh is not None:
            arguments = jax.tree.map(self._put, arguments)
        return self._compiled[key](weights, pools, *arguments)

    def decode_key(
        self, num_rows: int, modes: Sequence[SamplingMode], *, token_by_token: bool
    ) -> DecodeKey:
        """The smallest program for rows of these modes.

        Args:
          num_rows: at most the largest bucket.
          token_by_token: whether the host has to see each token before the next is chosen.

        Raises:
          InputError: no compiled mode serves them.
        """
        needed = functools.reduce(SamplingMode.__or__, modes)
        mode = next((mode for mode in self.settings.modes if mode.covers(needed)), None)
        if mode is None:
            raise InputError(
                f"this needs {needed}, which the engine was not compiled for: see its settings"
            )
        bucket = next(size for size in self.settings.row_buckets if size >= num_rows)
        speculates = self._ways(mode)[-1] and not token_by_token
        return DecodeKey(bucket, mode, speculates)

    def _function(self, key: ExecutableKey) -> Callable:
        if isinstance(key, DecodeKey):
            return functools.partial(
                decode,
                config=self.config,
                vocab_size=self.vocab_size,
                operators=self.decode_operators,
                mode=key.mode,
                speculation=self.settings.speculation if key.speculates else None,
            )
        speculation = self.settings.speculation
        same = dict(
            config=self.config,
            draft_config=speculation and speculation.draft_config,
            operators=self.prefill_operators,
        )
        if key.scored:
            return functools.partial(
                score, vocab_size=self.vocab_size, num_top=MAX_LOGPROBS, **same
            )
        return functools.partial(prefill, **same)

    def _examples(self, key: ExecutableKey) -> tuple[Any, ...]:
        """Arguments of a program after weights and pages, in their shapes and dtypes."""
        settings = self.settings
        if isinstance(key, DecodeKey):
            one = np.int32(1)
            return empty_decode_rows(key, settings, self.vocab_size), one, one
        tokens, rows, targets = empty_prefill_rows(key, settings)
        return (tokens, rows, targets) if key.scored else (tokens, rows)

    def _put(self, x: np.ndarray) -> jax.Array:
        """`x` whole on every device; `device_put` would ask the other processes whether they agree,
        every time."""
        return jax.make_array_from_callback(x.shape, self._everywhere(), lambda index: x[index])

    def _everywhere(self):
        """The sharding of what lies whole on every device; None without a mesh."""
        return None if self.mesh is None else replicated(self.mesh)

    def _platform(self) -> str:
        sharding = jax.tree.leaves(self.weights)[0].sharding
        platform = next(iter(sharding.device_set)).platform
        return "cuda" if platform == "gpu" else platform


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )
