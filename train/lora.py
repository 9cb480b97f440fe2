"""Fine-tuning a low-rank change of frozen weights: what of a model is trained, and how both meet.

The trained parameters are a tree like a part of the model's, `{"blocks": {"attention": {"query":
{"lora_down": ..., "lora_up": ...}}}}`, with layers stacked; the frozen weights lie in
`frozen["base"]`, quantised or not.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.checkpoints.parameter_names import PARAMETER_NAMES
from llama_jax.config import ModelConfig
from llama_jax.model import Params, abstract_params
from llama_jax.quantization.lora_tensor import LoraTensor
from sharding.placement import param_shardings
from train.field_checks import at_least, positive, require

DOWN, UP = "lora_down", "lora_up"
# Name of a weight -> its path below `blocks` and how many of its last dimensions are inputs.
TARGETS = {
    row.ours.rpartition(".")[2]: (tuple(row.ours.split(".")[2:]), row.contracted)
    for row in PARAMETER_NAMES
    if row.ours.startswith("blocks.") and len(row.dims.split()) > 1
}


@dataclass(frozen=True)
class LoraConfig:
    """Which weights get a change, and how large it can be.

    Attributes:
      rank: of each change.
      alpha: a change is multiplied by alpha / rank.
      targets: names of weights: query, key, value, output, gate, up, down.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(TARGETS)

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def check(self, place: str) -> None:
        """Raises `InputError` for what cannot be."""
        at_least(self.rank, 1, f"{place}.rank")
        positive(self.alpha, f"{place}.alpha")
        require(bool(self.targets), f"{place}.targets", "must have at least one weight")
        for target in self.targets:
            known = ", ".join(TARGETS)
            require(target in TARGETS, f"{place}.targets", f"{target!r} is not one of {known}")
        once = len(set(self.targets)) == len(self.targets)
        require(once, f"{place}.targets", "names a weight twice")


def abstract_adapters(
    config: ModelConfig, lora: LoraConfig, mesh: Mesh, *, dtype: jnp.dtype
) -> Params:
    """`ShapeDtypeStruct`s of the trained parameters, each split as its weight is."""
    shapes, shardings = abstract_params(config)["blocks"], param_shardings(config, mesh)["blocks"]

    def of_target(name: str) -> dict[str, jax.ShapeDtypeStruct]:
        path, contracted = TARGETS[name]
        shape = _at(shapes, path).shape
        spec = _at(shardings, path).spec
        spec = (*spec, *(None,) * (len(shape) - len(spec)))
        (layers, *outputs), inputs = shape[:-contracted], shape[-contracted:]
        parts = {
            DOWN: ((layers, lora.rank, *inputs), (spec[0], None, *spec[-contracted:])),
            UP: ((layers, *outputs, lora.rank), (*spec[:-contracted], None)),
        }
        return {
            part: jax.ShapeDtypeStruct(
                shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes))
            )
            for part, (shape, axes) in parts.items()
        }

    blocks: dict[str, Any] = {}
    for name in lora.targets:
        *parents, last = TARGETS[name][0]
        node = functools.reduce(lambda node, key: node.setdefault(key, {}), parents, blocks)
        node[last] = of_target(name)
    return {"blocks": blocks}


def init_adapters(abstract: Params, key: jax.Array) -> Params:
    """New changes, which change nothing yet: `down` uniform within 1 / sqrt(inputs), as PEFT has
    it, and `up` 0."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def init(key):
        leaves, tree = jax.tree_util.tree_flatten_with_path(abstract)
        made = []
        for index, (path, leaf) in enumerate(leaves):
            if path[-1].key == UP:
                made.append(jnp.zeros(leaf.shape, leaf.dtype))
                continue
            bound = 1 / math.sqrt(math.prod(leaf.shape[2:]))
            own = jax.random.fold_in(key, index)
            made.append(jax.random.uniform(own, leaf.shape, leaf.dtype, -bound, bound))
        return jax.tree.unflatten(tree, made)

    return jax.jit(init, out_shardings=shardings)(key)


def with_adapters(base: Params, adapters: Params, lora: LoraConfig) -> Params:
    """The model's parameters: `base` with a `LoraTensor` where `adapters` has a change."""

    def merge(base, adapters):
        if DOWN in adapters:
            return LoraTensor(base, adapters[DOWN], adapters[UP], lora.scaling)
        return {
            name: merge(node, adapters[name]) if name in adapters else node
            for name, node in base.items()
        }

    return merge(base, adapters)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(lambda node, key: node[key], path, tree)
