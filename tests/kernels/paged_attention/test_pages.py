"""Writing to pages: what lands where, what does not, what is lost by quantising."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from llama_jax.compile_targets import target_devices
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention.pages import (
    KVPages,
    init_pages,
    quick_page_dtype,
    write_pages,
)
from llama_jax.model import init_cache

PAGE_SIZE, K, H = 4, 2, 8
TABLE = np.array([[5, 2], [0, 3]], np.int32)


def random_tokens(num_tokens):
    random = np.random.default_rng(0)
    return [random.normal(size=(2, K, num_tokens, H)).astype(np.float32) for _ in range(2)]


def written(*arguments) -> KVPages:
    """`write_pages`, in NumPy."""
    return jax.tree.map(np.asarray, jax.jit(write_pages)(*arguments))


def test_every_token_lands_in_its_slot():
    key, value = random_tokens(3)
    positions = np.array([[3, 4, 5], [0, 1, 7]], np.int32)
    pages = written(init_pages(6, PAGE_SIZE, K, H, jnp.float32), TABLE, positions, key, value)
    expected = np.zeros((6, PAGE_SIZE, 2 * K, H), np.float32)
    for row in range(2):
        for token, position in enumerate(positions[row]):
            page, slot = TABLE[row, position // PAGE_SIZE], position % PAGE_SIZE
            expected[page, slot, 0::2] = key[row, :, token]
            expected[page, slot, 1::2] = value[row, :, token]
    np.testing.assert_array_equal(pages.pages, expected)
    assert pages.scales is None


def test_padding_and_what_has_no_page_change_nothing():
    key, value = random_tokens(2)
    before = init_pages(6, PAGE_SIZE, K, H, jnp.int8)
    positions = np.array([[-1, 8], [-PAGE_SIZE, 9]], np.int32)
    after = written(before, TABLE, positions, key, value)
    no_page = written(before, np.full_like(TABLE, -1), np.abs(positions) % 8, key, value)
    for changed in (after, no_page):
        jax.tree.map(np.testing.assert_array_equal, before, changed)


# Half a step of 127 for int8; half of the last of e4m3's 3 mantissa bits: arXiv 2209.05433.
@pytest.mark.parametrize(("dtype", "error"), [(jnp.int8, 0.5 / 127), (jnp.float8_e4m3fn, 2**-4)])
def test_quantised_tokens_are_off_by_half_a_step(dtype, error):
    key, value = random_tokens(3)
    positions = np.array([[0, 1, 4], [2, 5, 6]], np.int32)
    pages = written(init_pages(6, PAGE_SIZE, K, H, dtype), TABLE, positions, key, value)
    for row in range(2):
        for token, position in enumerate(positions[row]):
            page, slot = TABLE[row, position // PAGE_SIZE], position % PAGE_SIZE
            numbers = np.asarray(pages.pages[page, slot], np.float32)
            stored = numbers * np.asarray(pages.scales[page, :, slot])[:, None]
            wanted = np.stack([key[row, :, token], value[row, :, token]], 1).reshape(2 * K, H)
            largest = np.abs(wanted).max(axis=-1, keepdims=True)
            assert np.all(np.abs(stored - wanted) <= 1.001 * error * largest)


def test_a_nan_is_kept_by_its_scale():
    key, value = random_tokens(1)
    key[0, 1, 0, 3] = np.nan
    positions = np.zeros((2, 1), np.int32)
    pages = written(init_pages(6, PAGE_SIZE, K, H, jnp.int8), TABLE, positions, key, value)
    assert np.isnan(pages.scales[TABLE[0, 0], 2, 0])
    assert np.isnan(pages.scales).sum() == 1


# XLA's CPU backend scatters bfloat16 as float32, in a copy; a TPU does not (below).
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int8])
def test_donated_pages_are_written_in_place(dtype):
    pages = init_pages(64, 16, 2, 128, dtype)
    key = jnp.ones((2, 2, 1, 128), jnp.bfloat16)
    positions = jnp.zeros((2, 1), jnp.int32)
    write = jax.jit(write_pages, donate_argnums=0)
    memory = write.lower(pages, TABLE, positions, key, key).compile().memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pages))
    assert memory.alias_size_in_bytes == size
    assert memory.temp_size_in_bytes < 0.1 * size


@pytest.mark.parametrize(
    ("dtype", "target"),
    [(jnp.bfloat16, "v5e:2x2"), (jnp.int8, "v5p:2x2x1"), (jnp.float8_e4m3fn, "tpu7x:2x2x1")],
)
def test_a_tpu_writes_donated_pages_in_place(dtype, target):
    pytest.importorskip("libtpu")
    here = SingleDeviceSharding(target_devices(target)[0])
    arguments = (
        jax.eval_shape(lambda: init_pages(1024, 64, 8, 128, dtype)),
        jax.ShapeDtypeStruct((8, 16), jnp.int32),
        jax.ShapeDtypeStruct((8, 1), jnp.int32),
        jax.ShapeDtypeStruct((8, 8, 1, 128), jnp.bfloat16),
        jax.ShapeDtypeStruct((8, 8, 1, 128), jnp.bfloat16),
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments[0]))
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), arguments
    )
    write = jax.jit(write_pages, donate_argnums=0)
    memory = write.lower(*arguments).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < 0.1 * size


def test_pages_are_a_tree_with_and_without_scales():
    for dtype, leaves in ((jnp.bfloat16, 1), (jnp.float8_e4m3fn, 2)):
        pages = init_pages(3, 16, 4, 8, dtype)
        assert len(jax.tree.leaves(pages)) == leaves
        assert isinstance(jax.tree.map(jnp.zeros_like, pages), KVPages)
        assert (pages.page_size, pages.num_kv_heads) == (16, 4)


@pytest.mark.parametrize("dtype", [jnp.float8_e5m2, jnp.int4, jnp.uint8, jnp.int32], ids=str)
def test_what_no_cache_holds_is_refused(dtype):
    for empty in (
        lambda: init_pages(3, 16, 4, 8, dtype),
        lambda: init_cache(TINY, 1, 16, dtype),
    ):
        with pytest.raises(InputError, match="int8 or float8_e4m3fn, not "):
            empty()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_wider_pages_on_a_cpu_hold_the_same_numbers(dtype):
    assert quick_page_dtype(dtype, "cpu") == jnp.float32
    assert quick_page_dtype(dtype, "gpu") == quick_page_dtype(dtype, "tpu") == dtype
    key, value = (x.astype(dtype) for x in random_tokens(3))
    positions = np.array([[3, 4, 5], [0, 1, 7]], np.int32)
    narrow = written(init_pages(6, PAGE_SIZE, K, H, dtype), TABLE, positions, key, value)
    wide = written(init_pages(6, PAGE_SIZE, K, H, jnp.float32), TABLE, positions, key, value)
    np.testing.assert_array_equal(wide.pages, narrow.pages.astype(np.float32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int8, jnp.float8_e4m3fn], ids=str)
def test_other_pages_stay_what_they_are(dtype):
    assert quick_page_dtype(dtype, "cpu") == dtype
