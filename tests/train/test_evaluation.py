"""The loss on held-out rows: what it should be, on any mesh, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import REFERENCE, forward, init_params, logits
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from sharding.sharded_log_probs import sharded_log_probs
from sharding.sharded_operators import shard_operators
from train.config import EvaluationSet
from train.data.packed_rows import PackedRows
from train.data.shard_writer import write_rows
from train.evaluation import evaluate
from train.losses.cross_entropy import CrossEntropy
from train.network import Network

pytestmark = pytest.mark.usefixtures("quick_compilation")

HASH = "a" * 64
MODEL = dataclasses.replace(TINY, context_length=32)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: init_params(MODEL, key))(jax.random.key(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two prepared folders with rows of 16 and of 32 tokens; the last rows are not full."""
    folder = tmp_path_factory.mktemp("held_out")
    random = np.random.default_rng(0)
    for name, row_length in (("short", 16), ("long", 32)):
        documents = [random.integers(1, 256, length) for length in (40, 3, 90, 31, 100)]
        write_rows(
            folder / name, documents, row_length=row_length, vocab_size=256, tokenizer_sha256=HASH
        )
    return folder


measure_on = functools.partial(evaluate, loss=CrossEntropy(), frozen={})


def measure(params, sets, shape, num_devices):
    mesh = make_mesh(shape, jax.devices()[:num_devices])
    network = Network(
        config=MODEL,
        operators=shard_operators(REFERENCE, mesh),
        sharded_log_probs=functools.partial(sharded_log_probs, mesh=mesh, vocab_chunk=64),
        dtype=jnp.float32,
        remat="none",
    )
    with on_mesh(mesh):
        placed = jax.device_put(params, param_shardings(MODEL, mesh))
        return measure_on(network, placed, sets, mesh, tokenizer_sha256=HASH)


@jax.jit
def all_logits(params, tokens, segment_ids):
    hidden = forward(params, tokens, config=MODEL, segment_ids=segment_ids)
    return logits(params, hidden, config=MODEL)


def expected(params, path, num_rows):
    """From the logits of every position, in float64, a target at a time."""
    rows = [PackedRows(path)[index] for index in range(num_rows)]
    tokens = np.stack([row.tokens for row in rows])
    segment_ids = np.stack([row.segment_ids for row in rows])
    scores = np.asarray(all_logits(params, tokens[:, :-1], segment_ids[:, :-1]), np.float64)
    losses = []
    for r, t in np.ndindex(scores.shape[:2]):
        if segment_ids[r, t] == segment_ids[r, t + 1] != 0:
            losses.append(np.log(np.exp(scores[r, t]).sum()) - scores[r, t, tokens[r, t + 1]])
    return np.mean(losses)


def test_any_mesh_gives_the_mean_over_the_targets_that_count(params, folders):
    # 9 rows of which the last is not full and 7 of 9; batches of 4 and 8 leave empty rows.
    sets = (
        EvaluationSet("short", str(folders / "short"), num_rows=15, batch_rows=8),
        EvaluationSet("long", str(folders / "long"), num_rows=7, batch_rows=4),
    )
    wanted = {s.name: expected(params, s.path, s.num_rows) for s in sets}
    shapes = {1: MeshShape(), 8: MeshShape(data=2, fsdp=2, tensor=2)}
    for num_devices, shape in shapes.items():
        losses = measure(params, sets, shape, num_devices)
        assert list(losses) == ["short", "long"]
        # Sums of about a hundred float32 terms near 5.5, in another order on every mesh.
        assert losses == pytest.approx(wanted, rel=2e-6)


def test_the_number_of_rows_at_once_changes_nothing(params, folders):
    one, many = (
        measure(params, (EvaluationSet("s", str(folders / "short"), 5, rows),), MeshShape(), 1)
        for rows in (1, 8)
    )
    assert one == pytest.approx(many, rel=2e-6)  # as above


@pytest.mark.parametrize(
    "held_out, message",
    [
        (EvaluationSet("x", "nowhere", 1, 8), "nowhere: there is no such folder"),
        (EvaluationSet("x", "short", 99, 8), "evaluation set x: num_rows must be from 1 to the"),
        (EvaluationSet("x", "short", 5, 7), "7 rows do not divide"),
    ],
    ids=["missing", "too short", "does not divide"],
)
def test_a_set_that_cannot_be_is_refused(params, folders, monkeypatch, held_out, message):
    monkeypatch.chdir(folders)
    with pytest.raises(InputError, match=message):
        measure(params, (held_out,), MeshShape(fsdp=2), 2)


def test_rows_longer_than_the_context_are_refused(params, folders):
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    short = dataclasses.replace(MODEL, context_length=16)
    network = Network(short, REFERENCE, None, jnp.float32, "none")
    sets = (EvaluationSet("long", str(folders / "long"), 1, 1),)
    with pytest.raises(InputError, match="rows of 32 tokens are longer than the model's context_l"):
        measure_on(network, params, sets, mesh)


def test_another_tokenizer_is_refused(params, folders):
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    network = Network(MODEL, REFERENCE, None, jnp.float32, "none")
    sets = (EvaluationSet("short", str(folders / "short"), 1, 1),)
    with pytest.raises(InputError, match="was prepared with the tokenizer aaaaaaaaaaaa"):
        measure_on(network, params, sets, mesh, tokenizer_sha256="b" * 64)
