"""GGUF files: against gguf's own reader and transformers' loader, and hostile ones."""

import dataclasses
import json
import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from infer.smollm2 import smollm2_gguf
from llama_jax.checkpoints.compare import compare
from llama_jax.checkpoints.gguf import GgufSource
from llama_jax.checkpoints.gguf_config import llama3_divisors
from llama_jax.checkpoints.gguf_file import GgufFile
from llama_jax.checkpoints.inspect import inspect_command
from llama_jax.checkpoints.parameter_names import layer_tensors
from llama_jax.config import TINY, LinearScaling, Llama3Scaling
from llama_jax.errors import InputError
from llama_jax.tokenizers.byte_alphabet import BYTE_TO_CHARACTER

# Rows of 256 numbers, the block of the K-quants.
CONFIG = dataclasses.replace(
    TINY,
    vocab_size=32,
    num_layers=1,
    model_dim=256,
    num_heads=8,
    num_kv_heads=2,
    head_dim=32,
    feed_forward_dim=256,
    rope_scaling=None,
    rope_theta=10_000.0,
    context_length=4096,
)
LEGACY = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)
# Byte offsets of the float16 scales in a K-quant block: other bytes may be anything.
SCALES = {
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
}


def store(values, kind):
    """float32 numbers as stored bytes; K-quants, which gguf cannot make, as random blocks."""
    if kind in (Kind.F32, Kind.F16):
        return values.astype({Kind.F32: np.float32, Kind.F16: np.float16}[kind])
    if kind not in SCALES:
        return gguf.quantize(values, kind)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(values.size)
    blocks = rng.integers(0, 256, (values.size // block_size, block_bytes), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = rng.uniform(1e-4, 1e-3, len(blocks)).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(values.shape[0], -1)


def write_gguf(path, config, kind=Kind.F32, *, fields=(), tensors=None, drop=()):
    """A file as llama.cpp's converter makes it. `fields` replace or add metadata, None removes."""
    metadata = {
        "llama.block_count": config.num_layers,
        "llama.context_length": config.context_length,
        "llama.embedding_length": config.model_dim,
        "llama.feed_forward_length": config.feed_forward_dim,
        "llama.attention.head_count": config.num_heads,
        "llama.attention.head_count_kv": config.num_kv_heads,
        "llama.rope.freq_base": config.rope_theta,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(config.vocab_size)],
        "tokenizer.ggml.scores": [0.5] * config.vocab_size,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | dict(fields)
    writer = gguf.GGUFWriter(path, metadata.pop("general.architecture", "llama"))
    writer.add_custom_alignment(64)
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, (bool, str)):
            {bool: writer.add_bool, str: writer.add_string}[type(value)](key, value)
        elif value is not None:
            {int: writer.add_uint32, float: writer.add_float32}[type(value)](key, value)
    rng = np.random.default_rng(0)
    for tensor in layer_tensors(config):
        name = tensor.foreign_name("gguf")
        values = rng.standard_normal(tensor.foreign_shape).astype(np.float32)
        stored_kind = Kind.F32 if len(tensor.shape) == 1 else kind
        if name not in drop:
            writer.add_tensor(name, store(values, stored_kind), raw_dtype=stored_kind)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", (*LEGACY, *SCALES), ids=lambda kind: kind.name)
def test_tensors_and_config_equal_transformers(tmp_path, kind):
    path = write_gguf(tmp_path / "model.gguf", CONFIG, kind)
    source = GgufSource(path)
    assert source.config == CONFIG
    state = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).state_dict()
    kept = {Kind.F16: np.float16, Kind.BF16: ml_dtypes.bfloat16}.get(kind, np.float32)
    for tensor in layer_tensors(CONFIG):
        ours = source.read(tensor.name)
        assert (ours.shape, ours.dtype) == (tensor.shape, source.tensors[tensor.name].dtype)
        assert ours.dtype == (np.float32 if len(tensor.shape) == 1 else kept)
        theirs = state[tensor.foreign_name("huggingface")].numpy().reshape(tensor.shape)
        assert np.array_equal(ours.astype(np.float32), theirs), tensor.name


@pytest.mark.parametrize("kind", (Kind.F16, Kind.Q4_1, Kind.Q6_K), ids=lambda kind: kind.name)
def test_parts_equal_parts_of_the_whole(tmp_path, kind):
    source = GgufSource(write_gguf(tmp_path / "model.gguf", CONFIG, kind))
    for name in source.tensors:
        whole = source.read(name)
        for index in ((slice(1, 2),), (slice(None), slice(3, 9)), (slice(2, 1),)):
            index = index[: whole.ndim]
            assert np.array_equal(source.read(name, index), whole[index])


def test_blocks_follow_the_format(tmp_path):
    """Q8_0 and Q4_0 by the format's own words: 32 numbers, d x q and d x (q - 8)."""
    for kind in (Kind.Q8_0, Kind.Q4_0):
        source = GgufSource(write_gguf(tmp_path / "model.gguf", CONFIG, kind))
        stored = source._file.rows("token_embd.weight", 0, CONFIG.vocab_size)
        blocks = stored.reshape(-1, 34 if kind == Kind.Q8_0 else 18)
        scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
        if kind == Kind.Q8_0:
            values = scale * blocks[:, 2:].view(np.int8)
        else:
            halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
            values = scale * (halves.astype(np.float32) - 8)
        assert np.array_equal(source.read("embedding"), values.reshape(CONFIG.vocab_size, -1))


def test_header_equals_ggufs_own_reader(tmp_path):
    extra = {
        "test.numbers": [1.5, -2.0],
        "test.flags": [True, False],
        "test.text": ["a", "é", ""],
        "test.flag": True,
    }
    path = write_gguf(tmp_path / "model.gguf", CONFIG, Kind.Q4_K, fields=extra)
    ours, theirs = GgufFile(path), gguf.GGUFReader(path)
    assert ours.metadata == {
        key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")
    }
    assert len(ours.tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert (mine.start, mine.num_bytes, mine.kind) == (
            tensor.data_offset,
            tensor.n_bytes,
            tensor.tensor_type,
        )
        assert mine.shape == tuple(int(size) for size in tensor.shape[::-1])


def test_tied_and_generation_ids(tmp_path):
    tied = dataclasses.replace(CONFIG, tied_embeddings=True)
    fields = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.padding_token_id": 0}
    source = GgufSource(write_gguf(tmp_path / "model.gguf", tied, fields=fields))
    assert source.config == tied and "head" not in source.tensors
    from llama_jax.checkpoints.gguf import _generation

    assert _generation(source._file.metadata) == {
        "bos_token_id": 1,
        "eos_token_id": [2, 5],
        "pad_token_id": 0,
    }


def converters_divisors(config, factor):
    """What llama.cpp's convert_hf_to_gguf.py stores, written from its description, in float32."""
    base = np.float32(config.rope_theta)
    frequencies = 1 / base ** (
        np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    )
    divisors = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192 / 1:
            divisors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_rope_tables_of_llama_31_are_recognised(tmp_path, factor, head_dim):
    scaling = Llama3Scaling(factor, 1.0, 4.0, 8192)
    config = dataclasses.replace(
        CONFIG, head_dim=head_dim, rope_theta=500_000.0, rope_scaling=scaling
    )
    divisors = converters_divisors(config, factor)
    # float32 against float64; the interpolated band divides small differences.
    np.testing.assert_allclose(divisors, llama3_divisors(scaling, 500_000.0, head_dim), rtol=2e-5)
    fields = {"llama.attention.key_length": head_dim, "llama.attention.value_length": head_dim}
    path = write_gguf(
        tmp_path / "model.gguf", config, fields=fields, tensors={"rope_freqs.weight": divisors}
    )
    assert GgufSource(path).config == config


@pytest.mark.parametrize("fields", [{"llama.rope.scaling.type": "linear"}, {}])
def test_linear_scaling(tmp_path, fields):
    fields = {"llama.rope.scaling.factor": 4.0, **fields}
    source = GgufSource(write_gguf(tmp_path / "model.gguf", CONFIG, fields=fields))
    assert source.config.rope_scaling == LinearScaling(4.0)


@pytest.fixture
def talking_file(tmp_path):
    """A file whose tokenizer works: bytes, one merge, one control token."""
    tokens = [BYTE_TO_CHARACTER[byte] for byte in range(256)] + ["ab", "<|end|>"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": None,
        "tokenizer.ggml.token_type": [1] * 257 + [3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 257,
    }
    config = dataclasses.replace(CONFIG, vocab_size=len(tokens))

    def write(name="talking.gguf", **changes):
        return write_gguf(tmp_path / name, config, fields=fields | changes)

    return write


def test_a_text_is_compared_with_the_files_tokenizer(talking_file):
    _, differences = compare(talking_file("a.gguf"), talking_file("b.gguf"), text="abba" * 20)
    assert differences["text"].max_relative == 0


def test_inspect_says_why_a_tokenizer_cannot_be_used(talking_file, capsys):
    inspect_command(talking_file(), json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["tokenizer"]["vocab_size"] == 258 and facts["tokenizer"]["eos_ids"] == [257]
    inspect_command(talking_file(**{"tokenizer.ggml.pre": "never-heard-of"}), json=True)
    other = json.loads(capsys.readouterr().out)
    assert "never-heard-of" in other["tokenizer"]["error"]
    assert other["config"] == facts["config"] and other["bytes"] == facts["bytes"]


@pytest.mark.slow
def test_smollm2_equals_transformers(tmp_path):
    path = smollm2_gguf()
    source = GgufSource(path)
    assert source.config.tied_embeddings and source.config.norm_eps == 1e-5
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    state = model.state_dict()
    for tensor in layer_tensors(source.config):
        theirs = state[tensor.foreign_name("huggingface")].numpy().reshape(tensor.shape)
        assert np.array_equal(source.read(tensor.name), theirs), tensor.name
    for name, content in source.assets.files.items():
        (tmp_path / name).write_bytes(content)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    text = "Größe 1234: def f(x):\n    return x  # 你好 <|im_end|>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert source.assets.generation["eos_token_id"] == ours.eos_token_id == 2


# --- Bad input: one line that names the file, and no other exception. ---


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        GgufSource(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"general.architecture": "qwen2"}, "qwen2"),
        ({"general.type": "adapter"}, "general.type"),
        ({"split.count": 3}, "split"),
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.attention.sliding_window": 4096}, "sliding_window"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.rope.scaling.type": "linear"}, "rope.scaling.factor"),
        ({"llama.rope.scaling.factor": 0.0}, "rope.scaling: .*factor must be a positive"),
        ({"llama.rope.scaling.attn_factor": 0.5}, "attn_factor"),
        ({"llama.rope.dimension_count": 16}, "dimension_count"),
        ({"llama.attention.value_length": 64}, "value_length"),
        ({"llama.vocab_size": 33}, "vocab_size"),
        ({"llama.block_count": None}, "block_count"),
        ({"llama.block_count": 2**32 - 1}, "blk.1.attn_norm.weight is missing"),
        ({"llama.embedding_length": "x"}, "embedding_length"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.attention.head_count_kv": [2, 2]}, "head_count_kv"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon"),
        ({"llama.feed_forward_length": 128}, "shape"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path, fields, match):
    refused(write_gguf(tmp_path / "model.gguf", CONFIG, fields=fields), match)


def test_tensors_that_do_not_fit(tmp_path):
    path = tmp_path / "model.gguf"
    refused(write_gguf(path, CONFIG, drop=["blk.0.attn_q.weight"]), "attn_q.weight is missing")
    refused(write_gguf(path, CONFIG, drop=["token_embd.weight"]), "vocab_size")
    bias = {"blk.0.attn_q.bias": np.ones(256, "f4")}
    refused(write_gguf(path, CONFIG, tensors=bias), "attn_q.bias")
    table = {"rope_freqs.weight": np.linspace(1, 8, 16, dtype="f4")}
    refused(write_gguf(path, CONFIG, tensors=table), "rope_freqs.weight")
    refused(
        write_gguf(path, CONFIG, tensors={"rope_freqs.weight": table["rope_freqs.weight"][1:]}),
        "rope_freqs",
    )
    refused(
        write_gguf(path, CONFIG, tensors={"rope_freqs.weight": np.full(16, np.nan, "f4")}),
        "rope_freqs",
    )
    refused(write_gguf(path, CONFIG, tensors={"x": np.ones(3, np.int32)}), "I32")


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "good.gguf", CONFIG).read_bytes()


@pytest.mark.parametrize("keep", [0, 3, 23, 24, 200, 1500, -1])
def test_truncated_file(tmp_path, good_file, keep):
    path = tmp_path / "short.gguf"
    path.write_bytes(good_file[:keep])
    refused(path, "short|past the end")


@pytest.mark.parametrize(
    ("position", "layout", "value", "match"),
    [
        (0, "<I", 0, "GGUF"),
        (4, "<I", 1, "version 1"),
        (4, ">I", 3, "little endian"),
        (8, "<Q", 2**63, "past the end|twice|dimensions"),
        (16, "<Q", 2**63, "past the end|twice|unknown"),
        (24, "<Q", 2**64 - 1, "past the end"),
    ],
)
def test_header_that_lies(tmp_path, good_file, position, layout, value, match):
    content = bytearray(good_file)
    struct.pack_into(layout, content, position, value)
    (tmp_path / "bad.gguf").write_bytes(content)
    refused(tmp_path / "bad.gguf", match)


@pytest.mark.parametrize("item_type", [0, 4, 8, 9, 77])
def test_array_that_claims_more_than_the_file(tmp_path, item_type):
    """With gguf's own reader, type 0 here loops until memory is full."""
    key = b"k"
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
    (tmp_path / "bad.gguf").write_bytes(header + struct.pack("<IIQ", 9, item_type, 2**60))
    refused(tmp_path / "bad.gguf", "array")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(tmp_path_factory, good_file, data):
    content = bytearray(good_file)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 2500))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content)
    try:
        source = GgufSource(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        for name, spec in source.tensors.items():
            assert source.read(name).shape == spec.shape
