"""How the devices that serve one copy of a model are arranged."""

import math

from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from sharding.mesh import MeshShape


def serving_mesh_shape(config: ModelConfig, num_devices: int) -> MeshShape:
    """All devices for one copy of the model, so that a step reads each weight once.

    As many as there are key and value heads, or a part of them, lie along `tensor`; what is left
    over lies along `context`, and each key head is copied that often (`rules.py: SERVING`). More
    copies of the model for more rows are more engines: rows share nothing but the weights.

    Raises `InputError` where the query heads do not divide among the devices.
    """
    if num_devices < 1 or config.num_heads % num_devices:
        raise InputError(
            f"{config.num_heads} query heads do not divide among {num_devices} devices: use a "
            "divisor of that number"
        )
    tensor = math.gcd(config.num_kv_heads, num_devices)
    return MeshShape(fsdp=1, tensor=tensor, context=num_devices // tensor)
