"""The tree of `params` that a config has, and the paths of its leaves."""

from typing import Any

import jax

from llama_jax.checkpoints.parameter_names import PARAMETER_NAMES
from llama_jax.config import ModelConfig
from llama_jax.model import Params
from llama_jax.quantization.quantized_tensor import QuantizedTensor


def names_tree(config: ModelConfig, *, stacked: bool) -> Params:
    """The tree of `params` with a tensor's name at each leaf. With `stacked`, `{}` in a name stands
    for all layers; else `blocks` is a tuple of layers."""
    tree: Params = {}
    for row in PARAMETER_NAMES:
        if not row.is_in(config):
            continue
        *parents, last = row.ours.replace(".{}", "").split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = row.ours
    if not stacked:
        tree["blocks"] = tuple(
            jax.tree.map(lambda name, layer=layer: name.format(layer), tree["blocks"])
            for layer in range(config.num_layers)
        )
    return tree


def leaf_paths(tree: Any) -> set[str]:
    """Paths such as `blocks.attention.query`; a quantised weight is one leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda node: isinstance(node, QuantizedTensor)
    )
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves}
