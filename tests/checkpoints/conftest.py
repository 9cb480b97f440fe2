"""What every format's tests need: random weights by our names, and a sink filled with them."""

import numpy as np
import pytest

from llama_jax.checkpoints.interface import TensorSpec
from llama_jax.checkpoints.parameter_names import layer_tensors


@pytest.fixture(scope="session")
def random_tensors():
    """`(config, dtype) -> {our name: array}`; norms are near 1, so that logits are of order one."""

    def make(config, dtype=np.float32):
        random = np.random.default_rng(0)
        tensors = {}
        for tensor in layer_tensors(config):
            values = random.normal(size=tensor.shape, scale=0.1)
            tensors[tensor.name] = (values + (len(tensor.shape) == 1)).astype(dtype)
        return tensors

    return make


@pytest.fixture(scope="session")
def specs_of():
    """`tensors -> {name: TensorSpec}`, as a sink wants them."""

    def specs(tensors):
        return {name: TensorSpec(values.shape, values.dtype) for name, values in tensors.items()}

    return specs
