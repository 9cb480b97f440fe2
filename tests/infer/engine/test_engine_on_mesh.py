"""The engine on several devices: the same answers, and pages that are split."""

import dataclasses

import jax
import pytest

from infer.engine.engine import Engine
from infer.engine.settings import SAMPLED, Speculation
from infer.sampling import SamplingParameters
from llama_jax.config import TINY
from llama_jax.model import init_params, unstack_blocks
from sharding.mesh import make_mesh
from sharding.placement import unstacked_shardings
from sharding.serving_mesh import serving_mesh_shape
from tests.infer.engine.run_engine import SETTINGS, answers, ask, random_prompts

CONFIG = dataclasses.replace(TINY, vocab_size=264, num_heads=8, num_kv_heads=2)
PROMPTS = random_prompts((1, 9, 33, 70, 33))
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("num_devices", [2, 8])
def test_a_mesh_answers_as_one_device_does(num_devices):
    settings = dataclasses.replace(
        SETTINGS, row_buckets=(4,), modes=(SAMPLED,), speculation=Speculation(2)
    )
    # Larger than the real initialisation, so that random answers vary.
    params = unstack_blocks(jax.tree.map(lambda x: 4 * x, init_params(CONFIG, jax.random.key(0))))
    asked = [
        ask(prompt, 12, SamplingParameters(0.8 * (i % 2), seed=i))
        for i, prompt in enumerate(PROMPTS)
    ]
    alone = Engine(CONFIG, params, settings)
    alone.compile()
    mesh = make_mesh(serving_mesh_shape(CONFIG, num_devices), jax.devices()[:num_devices])
    split = jax.device_put(params, unstacked_shardings(CONFIG, mesh))
    engine = Engine(CONFIG, split, settings, mesh=mesh)
    engine.compile()
    assert answers(engine, asked) == answers(alone, asked)
    (shard, *_) = engine._pools.model[0].pages.addressable_shards
    assert shard.data.shape[2] == 2  # one of two key heads, with its values
