"""The published layout of FP8 weights: written by torch, computed by transformers' own layers."""

import dataclasses
import json
import shutil
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax import forward, load_checkpoint, logits
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.huggingface import HuggingFaceSource
from llama_jax.checkpoints.huggingface_config import config_to_huggingface
from llama_jax.config import TINY
from llama_jax.errors import InputError
from llama_jax.quantization.quantized_tensor import QuantizedTensor

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

CONFIG = dataclasses.replace(TINY, num_layers=3)
FP8_LAYER = "model.layers.1.mlp."
TOKENS = np.random.default_rng(0).integers(CONFIG.vocab_size, size=(2, 17))


def quantize_rows(x, bound=None):
    """As FBGEMM documents `quantize_fp8_per_row`: a row's largest magnitude, at most `bound`, is
    448."""
    largest = x.float().abs().amax(-1, keepdim=True).clamp(min=1e-12, max=bound)
    scale = largest / 448
    values = (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return values, scale.squeeze(-1)


def fp8_layer(linear, values, scales):
    """transformers' FP8 layer with these numbers, FBGEMM's operators replaced by plain torch in
    float32: theirs round to bfloat16, which would hide small mistakes."""
    from transformers.integrations import fbgemm_fp8

    layer = fbgemm_fp8.FbgemmFp8Linear(linear.in_features, linear.out_features, False)
    layer.weight.requires_grad_(False)
    layer.load_state_dict({"weight": values, "weight_scale": scales.reshape(-1, 1)})
    layer.input_scale_ub.fill_(1200.0)

    def product(x, weight, x_scale, weight_scale, use_fast_accum):
        return (x.float() @ weight.float().T) * x_scale[:, None] * weight_scale.reshape(1, -1)

    def quantize(x, scale_ub):
        return quantize_rows(x, scale_ub.item())

    def forward(x):
        operators = mock.MagicMock(f8f8bf16_rowwise=product)
        with (
            mock.patch.object(fbgemm_fp8, "quantize_fp8_per_row", quantize, create=True),
            mock.patch.object(torch.ops, "fbgemm", operators, create=True),
        ):
            return fbgemm_fp8.FbgemmFp8Linear.forward(layer, x)

    return mock.MagicMock(side_effect=forward)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder in the layout of Llama-3.1-405B-Instruct-FP8, and the logits it stands for."""
    path = tmp_path_factory.mktemp("fbgemm") / "hf"
    path.mkdir()
    fields = config_to_huggingface(CONFIG, np.dtype(np.float32))
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{k: v for k, v in fields.items() if k != "architectures"})
    ).eval()
    for name, weight in model.named_parameters():
        # Large enough that some activation passes 1200, which the bound then cuts.
        weight.data.mul_(30 if "mlp.up_proj" in name or "mlp.gate_proj" in name else 2)
    state = {name: weight.data.clone() for name, weight in model.state_dict().items()}
    spared = ["lm_head"]
    for name in list(state):
        if "_proj.weight" not in name:
            continue
        module = name.removesuffix(".weight")
        if not module.startswith(FP8_LAYER):
            spared.append(module)
            continue
        state[name], scales = quantize_rows(state[name])
        state[f"{name}_scale"] = scales.reshape(-1, 1)
        parent = model.get_submodule(module.rpartition(".")[0])
        layer = fp8_layer(model.get_submodule(module), state[name], scales)
        part = module.rpartition(".")[2]
        del parent._modules[part]
        object.__setattr__(parent, part, layer)
    safetensors.save_file(state, path / "model.safetensors", {"format": "pt"})
    fields["quantization_config"] = {
        "quant_method": "fbgemm_fp8",
        "activation_scale_ub": 1200.0,
        "modules_to_not_convert": spared,
    }
    (path / "config.json").write_text(json.dumps(fields))
    with torch.inference_mode():
        expected = model(torch.from_numpy(TOKENS)).logits.numpy()
    return path, state, expected


def test_the_stored_bytes_are_the_loaded_ones(published):
    path, state, _ = published
    _, params = load_checkpoint(path, stacked=False)
    for layer, block in enumerate(params["blocks"]):
        for part in ("gate", "up", "down"):
            weight = block["feed_forward"][part]
            name = f"model.layers.{layer}.mlp.{part}_proj.weight"
            if layer != 1:
                assert not isinstance(weight, QuantizedTensor)
                continue
            values = state[name].view(torch.int8).numpy()
            assert np.asarray(weight.values).tobytes() == values.tobytes()
            np.testing.assert_array_equal(weight.scales, state[f"{name}_scale"].numpy()[:, 0])


def test_logits_equal_those_of_transformers_fp8_layers(published):
    path, _, expected = published
    config, params = load_checkpoint(path, stacked=False)
    found = logits(params, forward(params, jnp.asarray(TOKENS), config=config), config=config)
    # float32 sums in another order, but for activations that lie where a rounding to FP8 tips: an
    # eighth of such an activation, one of 128 in a sum.
    error = np.abs(np.asarray(found) - expected) / np.abs(expected).max()
    assert np.median(error) < 1e-5 and error.max() < 5e-3


def test_what_is_written_is_that_layout_again(published, tmp_path):
    path, state, _ = published
    convert(path, tmp_path / "orbax", to="orbax", quiet=True, say=lambda line: None)
    convert(tmp_path / "orbax", tmp_path / "hf", to="hf", quiet=True, say=lambda line: None)
    written = safetensors.load_file(tmp_path / "hf" / "model.safetensors")
    assert written.keys() == state.keys()
    for name, tensor in state.items():
        assert written[name].dtype == tensor.dtype and written[name].shape == tensor.shape
        assert torch.equal(written[name].view(torch.uint8), tensor.view(torch.uint8)), name
    ours, theirs = (
        json.loads((folder / "config.json").read_text())["quantization_config"]
        for folder in (tmp_path / "hf", path)
    )
    spared = [set(fields.pop("modules_to_not_convert")) for fields in (ours, theirs)]
    assert spared[0] == spared[1]
    assert ours == {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}


def test_multiplying_out_has_to_be_asked_for(published, tmp_path):
    path, state, _ = published
    with pytest.raises(InputError, match="--dtype bfloat16"):
        convert(path, tmp_path / "meta", to="meta", quiet=True, say=lambda line: None)
    said = []
    convert(path, tmp_path / "hf", to="hf", dtype="float32", quiet=True, say=said.append)
    assert any("3 quantised weights are multiplied out" in line for line in said)
    written = safetensors.load_file(tmp_path / "hf" / "model.safetensors")
    for name in (f"{FP8_LAYER}{part}_proj.weight" for part in ("gate", "up", "down")):
        expected = state[name].float() * state[f"{name}_scale"]
        assert torch.equal(written[name], expected)
    assert "quantization_config" not in json.loads((tmp_path / "hf" / "config.json").read_text())


def change_config(path, **fields):
    file = path / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] |= fields
    file.write_text(json.dumps(config))


def change_tensors(path, change):
    tensors = safetensors.load_file(path / "model.safetensors")
    change(tensors)
    safetensors.save_file(tensors, path / "model.safetensors", {"format": "pt"})


GATE = f"{FP8_LAYER}gate_proj.weight"
DAMAGES = {
    "another method": (
        lambda path: change_config(path, quant_method="modelopt"),
        "quant_method 'modelopt' is not supported",
    ),
    "another bound": (lambda path: change_config(path, activation_scale_ub=900.0), "900"),
    "unknown field": (lambda path: change_config(path, bits=3), "'bits' is not supported"),
    "not a list": (lambda path: change_config(path, modules_to_not_convert="lm_head"), "a list"),
    "more spared than there are": (
        lambda path: change_config(path, modules_to_not_convert=["lm_head", "model"]),
        "is F8_E4M3, but quantization_config",
    ),
    "fewer spared than there are": (
        lambda path: change_config(path, modules_to_not_convert=["lm_head"]),
        "makes it F8_E4M3",
    ),
    "lost scales": (
        lambda path: change_tensors(path, lambda tensors: tensors.pop(f"{GATE}_scale")),
        "gate_proj.weight_scale is missing",
    ),
    "short scales": (
        lambda path: change_tensors(
            path, lambda t: t.update({f"{GATE}_scale": t[f"{GATE}_scale"][:5].clone()})
        ),
        r"weight_scale has shape \[5, 1\]",
    ),
    "scales of nothing": (
        lambda path: change_tensors(
            path, lambda t: t.update({"lm_head.weight_scale": torch.ones(256, 1)})
        ),
        "'lm_head.weight_scale' is not part",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line(published, tmp_path, damage):
    spoil, message = DAMAGES[damage]
    copy = shutil.copytree(published[0], tmp_path / "copy")
    spoil(copy)
    with pytest.raises(InputError, match=message) as error:
        HuggingFaceSource(copy)
    assert "\n" not in str(error.value)


def test_fp8_without_a_word_in_the_config_is_refused(published, tmp_path):
    copy = shutil.copytree(published[0], tmp_path / "copy")
    fields = json.loads((copy / "config.json").read_text())
    del fields["quantization_config"]
    (copy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="is F8_E4M3, but quantization_config"):
        HuggingFaceSource(copy)
