"""The exported GGUF file holds the same model: read back by our reader, and by the gguf package."""

import dataclasses

import jax
import numpy as np
import pytest

from infer.benchmark.gguf_export import export_gguf
from llama_jax import init_params, save_checkpoint
from llama_jax.checkpoints.formats import open_source
from llama_jax.config import TINY, LinearScaling, Llama3Scaling, NtkScaling
from llama_jax.errors import InputError

LLAMA3 = Llama3Scaling(
    factor=8.0,
    low_frequency_factor=1.0,
    high_frequency_factor=4.0,
    original_context_length=8192,
)


def source_of(folder, **changes):
    config = dataclasses.replace(TINY, **changes)
    save_checkpoint(folder, config, init_params(config, jax.random.key(0)), format="hf")
    return open_source(folder)


@pytest.mark.parametrize(
    "tied, scaling",
    [(True, None), (False, LLAMA3), (True, LinearScaling(factor=4.0))],
    ids=["tied", "llama3", "linear"],
)
def test_float32_comes_back_bit_for_bit(tmp_path, tied, scaling):
    source = source_of(tmp_path / "hf", tied_embeddings=tied, rope_scaling=scaling)
    export_gguf(source, tmp_path / "model.gguf", dtype="float32")
    read = open_source(tmp_path / "model.gguf")
    assert read.config == source.config
    for name in source.tensors:
        np.testing.assert_array_equal(read.read(name), source.read(name))


def test_bfloat16_rounds_matrices_and_keeps_norms(tmp_path):
    source = source_of(tmp_path / "hf")
    export_gguf(source, tmp_path / "model.gguf", dtype="bfloat16")
    read = open_source(tmp_path / "model.gguf")
    for name, spec in read.tensors.items():
        expected = source.read(name)
        assert spec.dtype == (np.float32 if expected.ndim == 1 else jax.numpy.bfloat16)
        np.testing.assert_array_equal(read.read(name), expected.astype(spec.dtype))


def test_the_tokenizer_of_a_gguf_source_goes_along(tmp_path):
    from gguf import GGUFReader, GGUFWriter

    export_gguf(source_of(tmp_path / "hf"), tmp_path / "plain.gguf", dtype="float32")
    plain = GGUFReader(tmp_path / "plain.gguf")
    assert plain.fields["tokenizer.ggml.model"].contents() == "no_vocab"

    class Source:
        format, path = "gguf", tmp_path / "tokenizer.gguf"

    writer = GGUFWriter(Source.path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_types([1, 3])
    writer.add_eos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    from infer.benchmark.gguf_export import _add_tokenizer

    copy = GGUFWriter(tmp_path / "copy.gguf", "llama")
    _add_tokenizer(copy, Source)
    copy.write_header_to_file()
    copy.write_kv_data_to_file()
    copy.write_ti_data_to_file()
    copy.close()
    fields = {
        path: {
            name: (field.types, field.contents())
            for name, field in GGUFReader(path).fields.items()
            if name.startswith("tokenizer.")
        }
        for path in (Source.path, tmp_path / "copy.gguf")
    }
    assert fields[Source.path] == fields[tmp_path / "copy.gguf"] and fields[Source.path]


def test_a_scaling_that_the_format_cannot_say_is_refused(tmp_path):
    source = source_of(tmp_path / "hf", rope_scaling=None)
    source.config = dataclasses.replace(source.config, rope_scaling=NtkScaling(factor=2.0))
    with pytest.raises(InputError, match="NtkScaling"):
        export_gguf(source, tmp_path / "model.gguf", dtype="float32")
