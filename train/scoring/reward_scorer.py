"""Rewards of dialogs, many at once: one forward pass over texts of about the same length."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.checkpoints.dequantized import refuse_quantized
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.load import load_params
from llama_jax.errors import InputError
from llama_jax.kernels.select import training_operators
from llama_jax.model import forward, rewards
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import batch_sharding, on_mesh, param_shardings
from sharding.sharded_operators import shard_operators
from train.losses.bradley_terry import at_ends

_LEAST_LENGTH = 64


class RewardScorer:
    """A reward model on the first `num_devices` devices, each of which has a part of every weight
    and its own texts.

    Attributes:
      config: of the model.
    """

    def __init__(
        self, path: str | Path, *, dtype: str | None, num_devices: int, tokens_at_once: int
    ) -> None:
        """Args:
          path: a checkpoint of any format, as `open_source` takes it.
          dtype: of weights and activations; as stored if None.
          tokens_at_once: of the texts of one pass on each device, padding included; a text that is
            longer goes alone.

        Raises `InputError` if it is no reward model, is quantised, or does not divide.
        """
        if not 1 <= num_devices <= len(jax.devices()):
            raise InputError(f"--devices {num_devices}: there are {len(jax.devices())}")
        source = open_source(path)
        self.config = config = source.config
        if not config.reward_head:
            raise InputError(f"{path}: is no reward model; train one, as in llama-jax train --list")
        refuse_quantized(source, "scoring does not multiply with such weights")
        if config.model_dim % num_devices:
            raise InputError(
                f"--devices {num_devices}: does not divide the model's width {config.model_dim}"
            )
        self._mesh = mesh = make_mesh(MeshShape(fsdp=num_devices), jax.devices()[:num_devices])
        self._params = load_params(source, dtype=dtype, shardings=param_shardings(config, mesh))
        self._num_devices, self._tokens_at_once = num_devices, tokens_at_once
        device = mesh.devices.flat[0]
        operators = training_operators(device.platform, device.device_kind)
        operators = shard_operators(operators, mesh)

        @jax.jit
        def score(params, tokens, ends):
            hidden = forward(params, tokens, config=config, operators=operators)
            return at_ends(rewards(params, hidden, config=config), ends[:, None])[:, 0]

        self._score = score

    def __call__(self, texts: Sequence[np.ndarray]) -> list[float]:
        """The reward at the last token of each of `texts`, integer ids `[n]` of any lengths."""
        scores = np.zeros(len(texts))
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for length, group in _grouped(by_length, [self._padded(text) for text in texts]):
            rows = max(self._tokens_at_once // length, 1) * self._num_devices
            for first in range(0, len(group), rows):
                some = group[first : first + rows]
                scores[some] = self._of_some([texts[i] for i in some], rows, length)
        return scores.tolist()

    def _padded(self, text: np.ndarray) -> int:
        """The next power of two: few lengths, each of which is compiled for once."""
        wanted = max(_LEAST_LENGTH, 1 << (len(text) - 1).bit_length())
        return min(wanted, self.config.context_length)

    def _of_some(self, texts: list[np.ndarray], rows: int, length: int) -> np.ndarray:
        tokens, ends = np.zeros((rows, length), np.int32), np.full(rows, -1, np.int32)
        for row, text in enumerate(texts):
            tokens[row, : len(text)], ends[row] = text, len(text) - 1
        with on_mesh(self._mesh):
            placed = jax.device_put(tokens[None], batch_sharding(self._mesh))[0]
            scored = self._score(self._params, placed, jnp.asarray(ends))
        return np.asarray(jax.device_get(scored))[: len(texts)]


def _grouped(indices: Iterable[int], lengths: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """Each padded length with the texts that have it, in order."""
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(lengths[index], []).append(index)
    return groups.items()
