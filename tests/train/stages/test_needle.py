"""Needles: rows of the right length with one sentence in them, and a model that finds it or not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.shakespeare import write_byte_tokenizer
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.model import REFERENCE, forward, init_params, logits
from llama_jax.tokenizers import load_tokenizer
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from sharding.sharded_operators import shard_operators
from train.data.row import Row
from train.network import Network
from train.stages.find_needles import find_needles, needle_batch
from train.stages.needle import NeedleRows

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOS, EOS = 256, 257
MODEL = dataclasses.replace(TINY, vocab_size=264, context_length=512)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_tokenizer(folder)
    return load_tokenizer(folder)


class Text:
    """A haystack of letters, a document a row, padded at its end; all rows are different."""

    def __init__(self, length=64):
        self.length = length

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        tokens = random.integers(97, 123, self.length + 1).astype(np.int32)
        tokens[0], tokens[-6] = BOS, EOS
        segment_ids = np.ones(self.length + 1, np.int32)
        tokens[-5:], segment_ids[-5:] = 0, 0
        return Row(tokens, segment_ids)


def rows_of(tokenizer, haystack=None, **changes):
    arguments = {"row_length": 256, "num_needles": 5, "seed": 1} | changes
    return NeedleRows(tokenizer, haystack or Text(), **arguments)


@settings(max_examples=25)
@given(row_length=st.integers(84, 400), num_needles=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_row_is_full_and_has_one_needle_at_its_depth(tokenizer, row_length, num_needles, seed):
    rows = rows_of(tokenizer, row_length=row_length, num_needles=num_needles, seed=seed)
    for index in range(len(rows)):
        row = rows[index]
        assert row.tokens.shape == (row_length + 1,) and row.tokens.dtype == np.int32
        assert row.tokens[0] == BOS and not np.isin(row.tokens[1:], [BOS, EOS, 0]).any()
        text = bytes(row.tokens[1:].tolist()).decode()
        statement, question = text.rsplit("\n", 1)
        needle = f"{question}."
        assert statement.count(" The secret number of ") == 1 and statement.count(needle) == 1
        # Teacher forcing: the masked targets are the number, with the space before it.
        answer = bytes(row.tokens[1:][row.answer_mask].tolist()).decode()
        assert answer == " " + question.rsplit(" ", 1)[1] and len(answer) == 8
        # The text is that of the haystack, in order.
        assert "".join(statement.split(needle)) in "".join(
            bytes(t.tokens[1:-6].tolist()).decode() for t in (Text()[index + i] for i in range(9))
        )
        wanted = index / (num_needles - 1) if num_needles > 1 else 0.5
        assert row.depth == wanted
        rest = len(statement) - len(needle)
        assert statement.index(needle) == round(wanted * rest)


def test_rows_depend_on_the_seed_only(tokenizer):
    first, again, other = (rows_of(tokenizer, seed=seed) for seed in (1, 1, 2))
    for index in (3, 0, 4):
        np.testing.assert_array_equal(first[index].tokens, again[index].tokens)
        assert (first[index].tokens != other[index].tokens).any()
    # More needles lie at other depths, and ask for the same numbers.
    more = rows_of(tokenizer, num_needles=9)
    np.testing.assert_array_equal(first[2].tokens[-8:], more[2].tokens[-8:])


def test_a_row_too_short_says_what_it_needs(tokenizer):
    with pytest.raises(InputError, match="row_length 70 has no room for needle and question"):
        rows_of(tokenizer, row_length=70)[0]


def test_a_haystack_without_text_is_refused(tokenizer):
    class Empty:
        def __getitem__(self, index):
            return Row(*np.zeros((2, 65), np.int32))

    with pytest.raises(InputError, match="100 rows of the stage's data have less than"):
        rows_of(tokenizer, Empty())[0]


def test_batches_are_laid_out_as_in_training(tokenizer):
    rows = rows_of(tokenizer)
    batch = needle_batch(rows, 4, 3)
    assert {name: values.shape for name, values in batch.items()} == dict.fromkeys(
        ("tokens", "targets", "segment_ids", "loss_mask"), (1, 3, 256)
    )
    np.testing.assert_array_equal(batch["tokens"][0, 0], rows[4].tokens[:-1])
    np.testing.assert_array_equal(batch["targets"][0, 0], rows[4].tokens[1:])
    assert (batch["segment_ids"][0, 0] == 1).all() and batch["loss_mask"][0, 0].sum() == 8
    assert not any(values[0, 1:].any() for values in batch.values())  # past the last needle


@dataclasses.dataclass(frozen=True)
class Knowing:
    """A network that finds whatever `params["knows"]` has in a row: its head is the identity."""

    config: object

    def hidden(self, params, tokens, segment_ids):
        return jax.nn.one_hot(params["knows"], self.config.vocab_size)


def test_a_needle_is_found_if_every_digit_is(tokenizer):
    rows = rows_of(tokenizer, num_needles=4)
    mesh = make_mesh(MeshShape(), jax.devices()[:4])
    batch = needle_batch(rows, 0, 4)
    knows = batch["targets"][0].copy()
    knows[1, -1] += 1  # the last digit of one answer
    knows[2, -8] += 1  # the space before another
    knows[3, :-8] += 1  # everything but the answer
    params = {"embedding": jnp.eye(264), "knows": knows}
    network = Knowing(dataclasses.replace(MODEL, tied_embeddings=True))
    with on_mesh(mesh):
        found = find_needles(network, params, rows, mesh)
    assert found == (True, False, False, True)


def test_any_mesh_finds_what_all_logits_say(tokenizer):
    """Against argmax over the logits of every position, from one device. The model is random: so
    that it finds some needles, the numbers are what it answers greedily for some rows."""
    params = jax.jit(lambda key: init_params(MODEL, key))(jax.random.key(0))
    rows = Answered(rows_of(tokenizer, num_needles=5), params, MODEL)
    answered = {}
    for name, shape in {
        "one": MeshShape(), "fsdp": MeshShape(), "tensor": MeshShape(data=2, tensor=2)
    }.items():  # fmt: skip
        mesh = make_mesh(shape, jax.devices()[: 1 if name == "one" else 8])
        network = Network(
            config=MODEL,
            operators=shard_operators(REFERENCE, mesh),
            sharded_log_probs=None,
            dtype=jnp.float32,
            remat="none",
        )
        with on_mesh(mesh):
            placed = jax.device_put(params, param_shardings(MODEL, mesh))
            answered[name] = find_needles(network, placed, rows, mesh)
    assert answered["one"] == answered["fsdp"] == answered["tensor"]
    assert answered["one"] == (True, False, True, False, True)


class Answered:
    """Rows whose answer is one token: what `params` answers, in every second row."""

    max_answer_tokens = 1

    def __init__(self, rows, params, config):
        self._rows, self.row_length = rows, rows.row_length
        tokens = jnp.stack([row.tokens[:-1] for row in rows])
        hidden = jax.jit(lambda tokens: forward(params, tokens, config=config))(tokens)
        self._likeliest = np.argmax(logits(params, hidden, config=config), axis=-1)

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        row = self._rows[index]
        tokens = row.tokens.copy()
        tokens[-1] = self._likeliest[index, -1] + index % 2
        mask = np.zeros(self.row_length, bool)
        mask[-1] = True
        return dataclasses.replace(row, tokens=tokens, answer_mask=mask)
