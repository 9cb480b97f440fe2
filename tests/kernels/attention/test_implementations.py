"""Every implementation of attention against the float32 reference: outputs, log-sum-exp, gradients.

Kernels are interpreted on the CPU, with blocks of 128, so that rows of a few hundred tokens have
several. What an implementation refuses it must refuse by name, with those who would take it. The
reference itself is held to a numpy oracle. cuDNN cannot be interpreted: `test_cudnn.py`.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, PartitionSpec

from llama_jax.errors import InputError
from llama_jax.kernels.attention import implementations, reference
from llama_jax.kernels.attention.case import case_of
from llama_jax.kernels.attention.flash_tpu_blocks import Sizes
from llama_jax.kernels.attention.mask import (
    IntervalMask,
    MaskForm,
    causal_mask,
    packed_mask,
    window_mask,
)

_path = Path(__file__).parents[2] / "oracles" / "attention.py"
_spec = importlib.util.spec_from_file_location("attention_oracle", _path)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

HOPPER, TPU = ("gpu", "NVIDIA H100 80GB HBM3"), ("tpu", "TPU v5p")
# Name -> the device it is for, and what has it computed here.
HERE = {
    "chunked": (("cpu", "cpu"), {}),
    "mosaic_gpu": (HOPPER, {"interpret": True}),
    "splash": (TPU, {"interpret": True, "block": 128}),
    "flash_tpu": (TPU, {"interpret": True, "sizes": Sizes(256, 128, 128)}),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """heads: of queries and of keys. mask: from (batch, queries, keys)."""

    heads: tuple[int, int]
    lengths: tuple[int, int]
    head_dim: int
    dtype: str
    mask: Callable[[int, int, int], IntervalMask]
    return_lse: bool = True
    batch: int = 1


def causal(B, T, S):
    return causal_mask(B, T)


def packed(B, T, S):
    """Two long documents, then documents of one token up to the last quarter."""
    position = np.arange(T)
    documents = np.where(position < T // 4, 0, np.where(position < T // 2, 1, position))
    documents = np.where(position >= 3 * T // 4, T, documents)
    return packed_mask(jnp.broadcast_to(documents, (B, T)))


def padded(B, T, S):
    """Packed; the last tenth is padding, and all of the second row: they see nothing."""
    mask = packed(B, T, S)
    real = (jnp.arange(T) < T - T // 10) & (jnp.arange(B) != 1)[:, None]
    return IntervalMask(jnp.where(real, mask.key_start, 0), jnp.where(real, mask.key_end, 0))


def window(B, T, S):
    return window_mask(causal_mask(B, T), 70)


def prompt_over_cache(B, T, S):
    """The cache holds S - T - 7 tokens, then come T, then free slots."""
    end = S - T - 7 + jnp.arange(1, T + 1, dtype=jnp.int32)
    return IntervalMask(jnp.zeros((B, T), jnp.int32), jnp.broadcast_to(end, (B, T)))


def anything(B, T, S):
    start, end = np.random.default_rng(0).integers(0, S + 1, (2, B, T)).astype(np.int32)
    return IntervalMask(jnp.asarray(start), jnp.asarray(end))


# Each ratio of heads, each mask, both dtypes, both head sizes; lengths that are not whole blocks.
CASES = {
    "causal": Case((4, 4), (200, 200), 64, "float32", causal, return_lse=False),
    "causal in bfloat16": Case((4, 1), (256, 256), 128, "bfloat16", causal),
    "packed": Case((8, 1), (300, 300), 64, "bfloat16", packed, return_lse=False, batch=2),
    "packed in float32": Case((4, 2), (136, 136), 128, "float32", packed, return_lse=False),
    "padded": Case((4, 1), (192, 192), 64, "bfloat16", padded, batch=2),
    "window": Case((2, 2), (320, 320), 64, "float32", window),
    "window in bfloat16": Case((8, 1), (264, 264), 64, "bfloat16", window),
    "prompt over a cache": Case((4, 1), (130, 320), 128, "bfloat16", prompt_over_cache),
    "anything": Case((8, 1), (130, 290), 64, "float32", anything, batch=2),
    "shorter than a block": Case((2, 1), (5, 40), 64, "bfloat16", anything),
}
# Every mask with every dtype; ratios of heads in turn.
MORE_CASES = {
    f"{mask.__name__} {heads} {dtype}": Case(heads, lengths, 64, dtype, mask, batch=2)
    for (mask, lengths), of_each_dtype in {
        (causal, (150, 150)): [(4, 1), (8, 1)],
        (packed, (260, 260)): [(8, 1), (2, 2)],
        (padded, (200, 200)): [(2, 2), (4, 1)],
        (window, (260, 260)): [(4, 1), (2, 2)],
        (prompt_over_cache, (70, 300)): [(8, 1), (2, 2)],
        (anything, (200, 150)): [(2, 2), (4, 1)],
    }.items()
    for dtype, heads in zip(["float32", "bfloat16"], of_each_dtype, strict=True)
}

# Of the largest number of an array. float32: sums of 300 terms in another order. bfloat16, against
# float32 arithmetic on the same numbers: scaled queries, weights, gradients of scores and results
# are rounded, by 2**-9 each, and the errors of a few hundred terms mostly cancel.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2**-6}
# Scores are float32 sums of exact products for either; splash alone rounds scaled queries.
LSE_TOLERANCE = 1e-4


def arrays_of(case: Case):
    (N, K), (T, S), B, H = case.heads, case.lengths, case.batch, case.head_dim
    keys = jax.random.split(jax.random.key(1), 5)
    shapes = [(B, N, T, H), (B, K, S, H), (B, K, S, H), (B, N, T, H)]
    arrays = [
        jax.random.normal(key, shape, case.dtype) for key, shape in zip(keys, shapes, strict=False)
    ]
    return *arrays, jax.random.normal(keys[4], (B, N, T))


def results(attention, case: Case, arrays, **keywords):
    """Output, log-sum-exp, and the gradients of query, key and value."""
    query, key, value, of_output, of_lse = arrays
    mask = case.mask(case.batch, *case.lengths)

    @jax.jit
    def run(query, key, value, of_output, of_lse):
        def forward(query, key, value):
            return attention(
                query,
                key,
                value,
                mask,
                scale=case.head_dim**-0.5,
                return_lse=case.return_lse,
                **keywords,
            )

        result, gradients = jax.vjp(forward, query, key, value)
        if not case.return_lse:
            return result, None, *gradients(of_output)
        return *result, *gradients((of_output, of_lse))

    return run(query, key, value, of_output, of_lse)


@functools.cache
def expected_of(case: Case):
    exact = [x.astype(jnp.float32) for x in arrays_of(case)]
    return jax.tree.map(np.asarray, results(reference.attention, case, exact))


def empty_rows(case: Case) -> np.ndarray:
    mask = case.mask(case.batch, *case.lengths)
    return np.asarray(mask.key_end <= mask.key_start)


def unseen_keys(case: Case) -> np.ndarray:
    mask = case.mask(case.batch, *case.lengths)
    keys = np.arange(case.lengths[1])
    seen = (keys >= mask.key_start[..., None]) & (keys < mask.key_end[..., None])
    return ~np.asarray(seen).any(axis=1)


def assert_equals_the_reference(name: str, case: Case):
    (platform, device_kind), keywords = HERE[name]
    arrays = arrays_of(case)
    described = case_of(
        arrays[0],
        arrays[1],
        case.mask(case.batch, *case.lengths),
        platform=platform,
        device_kind=device_kind,
        return_lse=case.return_lse,
    )
    module = implementations.implementation(name)
    if reason := module.refusal(described):
        with pytest.raises(InputError) as error:
            implementations.choose((name,), described)
        assert f"{name}: {reason}" in str(error.value)
        assert "These take it: reference, chunked" in str(error.value)
        return
    computed = results(module.attention, case, arrays, **keywords)
    for what, result, expected in zip(
        ["output", "lse", "query", "key", "value"], computed, expected_of(case), strict=True
    ):
        if what == "lse":
            if case.return_lse:
                assert result.dtype == jnp.float32
                np.testing.assert_allclose(result, expected, rtol=0, atol=LSE_TOLERANCE)
            continue
        assert result.dtype == case.dtype, what
        result = np.asarray(result, np.float32)
        atol = TOLERANCE[case.dtype] * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol, err_msg=what)
        # Rows that see nothing, and keys that nothing sees.
        hidden = unseen_keys(case) if what in ("key", "value") else empty_rows(case)
        assert not np.moveaxis(result, 1, 2)[hidden].any(), what


# Simulating warpgroups, barriers and transfers costs seconds a block of threads.
SLOW = {("packed", "mosaic_gpu"), ("padded", "mosaic_gpu"), ("window in bfloat16", "mosaic_gpu")}


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, marks=[pytest.mark.slow] if (case, name) in SLOW else [])
        for case in CASES
        for name in HERE
    ],
)
def test_equals_the_reference_or_refuses_by_name(case, name):
    assert_equals_the_reference(name, CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("case", MORE_CASES)
def test_equals_the_reference_in_every_combination(case, name):
    assert_equals_the_reference(name, MORE_CASES[case])


def test_every_implementation_is_tested():
    assert {"reference", "cudnn", *HERE} == set(implementations.IMPLEMENTATIONS)


@pytest.mark.parametrize(
    "case",
    [
        Case((4, 1), (12, 20), 8, "float32", anything, batch=2),
        Case((2, 2), (17, 17), 8, "float32", padded, batch=2),
    ],
    ids=["anything", "padded"],
)
def test_the_reference_equals_the_oracle(case):
    arrays = arrays_of(case)
    output, lse, *gradients = results(reference.attention, case, arrays)
    mask = case.mask(case.batch, *case.lengths)
    bounds = np.asarray(mask.key_start), np.asarray(mask.key_end)
    query, key, value, of_output, of_lse = map(np.asarray, arrays)
    scale = case.head_dim**-0.5
    # float32 against float64; sums of at most 80 numbers of order one.
    np.testing.assert_allclose(
        output, oracle.attention(query, key, value, *bounds, scale=scale), atol=2e-6
    )
    expected = oracle.log_sum_exp(query, key, *bounds, scale=scale)
    assert (np.asarray(lse)[np.isinf(expected)] == reference.MASKED).all()
    seen = np.isfinite(expected)
    np.testing.assert_allclose(np.asarray(lse)[seen], expected[seen], atol=2e-6)
    expected = oracle.gradients(query, key, value, *bounds, of_output, of_lse, scale=scale)
    for result, exact in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(result, exact, atol=1e-5)


REFUSALS = [
    # (name, device, changes of a plain case, words of the reason, who takes it)
    ("splash", TPU, {"form": MaskForm.INTERVALS}, "any intervals", "flash_tpu"),
    ("splash", TPU, {"num_keys": 512}, "as many queries as keys", "flash_tpu"),
    ("splash", TPU, {"return_lse": True}, "log-sum-exp", "flash_tpu"),
    ("splash", TPU, {"head_dim": 96}, "not 96", None),
    ("splash", HOPPER, {}, "runs on TPUs", "cudnn"),
    ("flash_tpu", TPU, {"head_dim": 80}, "not 80", None),
    ("flash_tpu", TPU, {"dtype": jnp.dtype("float16")}, "not float16", None),
    ("flash_tpu", TPU, {"num_heads": 64, "num_kv_heads": 1}, "share a key head", "splash"),
    ("flash_tpu", ("cpu", "cpu"), {}, "not on cpu", None),
    ("mosaic_gpu", HOPPER, {"dtype": jnp.dtype("float32")}, "not float32", None),
    ("mosaic_gpu", HOPPER, {"head_dim": 96}, "not 96", "cudnn"),
    ("mosaic_gpu", ("gpu", "NVIDIA B200"), {}, "Hopper GPUs, not on NVIDIA B200", "cudnn"),
    ("mosaic_gpu", TPU, {}, "Hopper GPUs, not on TPU v5p", "splash"),
    ("cudnn", HOPPER, {"form": MaskForm.INTERVALS}, "any intervals", "mosaic_gpu"),
    ("cudnn", HOPPER, {"dtype": jnp.dtype("float32")}, "not float32", None),
    ("cudnn", HOPPER, {"head_dim": 264}, "not 264", None),
    ("cudnn", HOPPER, {"return_lse": True}, "log-sum-exp", None),
    ("cudnn", HOPPER, {"num_queries": 1}, "as many queries as keys", None),
    (
        "cudnn",
        ("gpu", "NVIDIA A100-SXM4-80GB"),
        {"form": MaskForm.PACKED},
        "need a Hopper GPU",
        None,
    ),
    ("cudnn", TPU, {}, "NVIDIA GPUs, not on TPU v5p", "splash, flash_tpu"),
]


@pytest.mark.parametrize(("name", "device", "changes", "words", "taker"), REFUSALS)
def test_a_refusal_says_why_and_who_would_take_it(name, device, changes, words, taker):
    query = jax.ShapeDtypeStruct((1, 8, 256, 128), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((1, 2, 256, 128), jnp.bfloat16)
    platform, device_kind = device
    plain = case_of(
        query,
        key,
        causal_mask(1, 256),
        platform=platform,
        device_kind=device_kind,
        return_lse=False,
    )
    case = dataclasses.replace(plain, **changes)
    with pytest.raises(InputError) as error:
        implementations.choose((name,), case)
    message = str(error.value)
    assert words in message and "\n" not in message
    reasons, takers = message.split("These take it: ")
    assert reasons.startswith(f"attention {name}: ")
    assert takers.startswith("reference, chunked") and name not in takers.split(", ")
    assert taker is None or taker in takers
    # The same from the operator that the model gets, and the next name takes what this one refuses.
    assert implementations.choose((name, "chunked"), case) == "chunked"


@pytest.mark.parametrize("name", ["splash", "flash_tpu"])
def test_runs_on_each_device_of_a_mesh(name):
    module = implementations.implementation(name)
    _, keywords = HERE[name]
    case = Case((2, 1), (130, 130), 64, "float32", causal, return_lse=False, batch=2)
    arrays = arrays_of(case)[:4]
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")

    def gradients(attention, query, key, value, of_output, mask):
        def forward(*arrays):
            return attention(*arrays, mask, scale=0.125)

        return jax.vjp(forward, query, key, value)[1](of_output)

    attention = functools.partial(module.attention, **keywords)
    sharded = jax.shard_map(
        functools.partial(gradients, attention),
        mesh=mesh,
        in_specs=rows,
        out_specs=rows,
        check_vma=False,
    )
    mask = causal(2, 130, 130)
    computed = jax.jit(sharded)(*arrays, mask)
    expected = gradients(reference.attention, *arrays, mask)
    for result, exact in zip(computed, expected, strict=True):
        np.testing.assert_allclose(result, exact, atol=TOLERANCE["float32"] * jnp.abs(exact).max())


@pytest.mark.slow
def test_flash_tpu_equals_the_reference_on_a_simulated_tpu(monkeypatch):
    """With transfers and semaphores, and memory that is not a number before it is written."""
    device, keywords = HERE["flash_tpu"]
    simulated = {**keywords, "interpret": pltpu.InterpretParams(uninitialized_memory="nan")}
    monkeypatch.setitem(HERE, "flash_tpu", (device, simulated))
    assert_equals_the_reference("flash_tpu", Case((2, 1), (140, 300), 64, "float32", anything))


def test_flash_tpu_adds_up_stretches_of_keys(monkeypatch):
    """More keys than have their gradients on the chip at once: three stretches of one block."""
    from llama_jax.kernels.attention import flash_tpu_blocks

    monkeypatch.setattr(flash_tpu_blocks, "SEGMENT_NUMBERS", 128 * 64)
    assert_equals_the_reference(
        "flash_tpu", Case((2, 1), (140, 300), 64, "float32", anything, batch=2)
    )
