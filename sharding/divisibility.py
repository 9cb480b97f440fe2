"""Whether a mesh divides an array, in one line of words: `shard_map` says it in many of its own."""

import math

from jax.sharding import Mesh, PartitionSpec

from llama_jax.errors import InputError


def check_divides(mesh: Mesh, dims: dict[str, int], spec: PartitionSpec) -> None:
    """Raises `InputError` with the numbers if a dimension is no multiple of its devices.

    Args:
      dims: what an array's dimensions count, such as `rows`, and how many there are.
      spec: the mesh axes that split each.
    """
    for (what, size), axes in zip(dims.items(), spec, strict=True):
        names = (axes,) if isinstance(axes, str) else axes or ()
        parts = math.prod(mesh.shape[name] for name in names)
        if size % parts:
            split = " x ".join(f"{name} {mesh.shape[name]}" for name in names)
            raise InputError(
                f"{size} {what} do not divide among the mesh's {split}; make them a multiple of "
                f"{parts}, or change the mesh"
            )
