"""Meta's FP8 folders against Meta's own FP8 loader and feed-forward, and damaged.

The reference runs in its own processes (`meta_reference.py`), one a shard.
"""

import dataclasses
import importlib.util
import json
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax import costs, forward, load_checkpoint, logits
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.meta import MetaSource
from llama_jax.checkpoints.meta_params import params_from_config
from llama_jax.config import LLAMA_31_405B, TINY
from llama_jax.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("fairscale")
pytest.importorskip("llama_models")

# The middle layer is the one that is quantised.
CONFIG = dataclasses.replace(TINY, num_layers=3)


def _parity_tests():
    """`run_reference` of the parity tests, which lie beside."""
    path = Path(__file__).with_name("test_meta_parity.py")
    spec = importlib.util.spec_from_file_location("meta_parity", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """FP8 folders of one and of two shards, and the reference's logits of each."""
    parity = _parity_tests()
    root = tmp_path_factory.mktemp("meta_fp8")
    for num_shards in (1, 2):
        folder = root / str(num_shards)
        folder.mkdir()
        fields = params_from_config(CONFIG, stored_kv_heads=CONFIG.num_kv_heads)
        (folder / "params.json").write_text(json.dumps(fields))
        jobs = [
            {"do": do, "folder": folder, "logits": root / f"logits{num_shards}.npy"}
            for do in ("write", "quantize", "fp8")
        ]
        parity.run_reference(root, jobs, num_shards)
    return root


def our_logits(folder):
    parity = _parity_tests()
    config, params = load_checkpoint(folder, stacked=False)
    positions = jnp.broadcast_to(parity.POSITIONS, parity.TOKENS.shape)
    hidden = forward(params, jnp.asarray(parity.TOKENS), config=config, positions=positions)
    return np.asarray(logits(params, hidden, config=config))


def test_one_shard_computes_what_metas_loader_and_feed_forward_compute(folders):
    expected = np.load(folders / "logits1.npy")
    error = np.abs(our_logits(folders / "1") - expected) / expected.std()
    # float32 sums in another order, but where that tips the rounding of an activation to FP8.
    assert np.median(error) < 1e-5 and error.max() < 2e-2


def test_two_shards_differ_by_the_second_rounding_of_down(folders, caplog):
    with caplog.at_level(logging.WARNING):
        found = our_logits(folders / "2")
    assert "rounds those weights a second time" in caplog.text
    expected = np.load(folders / "logits2.npy")
    error = np.abs(found - expected) / expected.std()
    # Half the weights of one of nine feed-forward products, and its inputs, are off by up to 2^-4.
    assert 1e-4 < error.mean() < 2e-2


def test_values_and_scales_are_those_of_the_files(folders):
    source = MetaSource(folders / "2")
    shards = [
        torch.load(folders / "2" / f"consolidated.{n:02d}.pth", weights_only=True) for n in (0, 1)
    ]
    scales = [torch.load(folders / "2" / f"fp8_scales_{n}.pt", weights_only=True) for n in (0, 1)]
    for ours, theirs in (("gate", "w1"), ("up", "w3")):
        name = f"blocks.1.feed_forward.{ours}"
        stored = torch.cat([s[f"layers.1.feed_forward.{theirs}.weight"] for s in shards])
        assert source.read(name).tobytes() == stored.view(torch.uint8).numpy().tobytes()
        stored = torch.cat([s[f"1_feed_forward.{theirs}_{n}"] for n, s in enumerate(scales)])
        np.testing.assert_array_equal(source.read(f"{name}.scales"), stored.numpy())

    name = "blocks.1.feed_forward.down"
    found = source.read(name).astype(np.float64) * source.read(f"{name}.scales")[:, None]
    stored = np.concatenate(
        [
            s["layers.1.feed_forward.w2.weight"].double() * f[f"1_feed_forward.w2_{n}"][:, None]
            for n, (s, f) in enumerate(zip(shards, scales, strict=True))
        ],
        axis=1,
    )
    # Half a unit in the last place, and below 2^-6 (of 448 at most) that of a subnormal number.
    step = np.maximum(2**-4 * np.abs(stored), 2**-10 * source.read(f"{name}.scales")[:, None])
    assert np.all(np.abs(found - stored) <= 1.001 * step)
    # What a shard of the larger scale holds is untouched.
    merged = source.read(f"{name}.scales")
    of_shards = [f[f"1_feed_forward.w2_{n}"].numpy() for n, f in enumerate(scales)]
    same = np.repeat(np.stack(of_shards, axis=1) == merged[:, None], 64, axis=1)
    np.testing.assert_allclose(found[same], stored[same], rtol=1e-7)
    part = (slice(3, 40), slice(50, 90))
    assert source.read(name, part).tobytes() == source.read(name)[part].tobytes()


def test_our_folder_keeps_the_bytes(folders, tmp_path):
    convert(folders / "1", tmp_path / "orbax", to="orbax", quiet=True, say=lambda line: None)
    np.testing.assert_array_equal(our_logits(tmp_path / "orbax"), our_logits(folders / "1"))


def test_the_size_of_405b_is_that_of_metas_files():
    """llama-models knows how large a published shard of the eight is: it has no scales in it, all
    norms, and some bytes of pickle and zip."""
    from llama_models.sku_list import llama3_1_family, llama_meta_pth_size
    from llama_models.sku_types import CheckpointQuantizationFormat

    sizes = {
        llama_meta_pth_size(model)
        for model in llama3_1_family()
        if model.quantization_format == CheckpointQuantizationFormat.fp8_mixed
    }
    (published,) = sizes
    c = LLAMA_31_405B
    parts = costs.weight_parts(c, np.dtype(jnp.bfloat16), "fp8")
    scales = 4 * (c.num_layers - 2) * (2 * c.feed_forward_dim + c.model_dim)
    ours = (sum(parts.values()) - scales + 7 * parts["norms"]) / 8
    assert 0 < published - ours < 1e-5 * published


def save_scales(folder, change):
    path = folder / "fp8_scales_0.pt"
    scales = torch.load(path, weights_only=True)
    change(scales)
    torch.save(scales, path)


W2 = "1_feed_forward.w2_0"
DAMAGES = {
    "cut off": (
        lambda path: (path / "fp8_scales_0.pt").write_bytes(b"PK\x03\x04 cut"),
        "not a whole .pth file",
    ),
    "lost": (lambda path: (path / "fp8_scales_1.pt").unlink(), "fp8_scales_1.pt: missing"),
    "all lost": (
        lambda path: [file.unlink() for file in path.glob("fp8_scales_*.pt")],
        "no fp8_scales_",
    ),
    "of another shard": (
        lambda path: shutil.copy(path / "fp8_scales_0.pt", path / "fp8_scales_2.pt"),
        "has no consolidated",
    ),
    "lost key": (lambda path: save_scales(path, lambda s: s.pop(W2)), f"{W2} is missing"),
    "more keys": (
        lambda path: save_scales(path, lambda s: s.update({"0_feed_forward.w2_0": s[W2]})),
        "no weight that Meta quantises",
    ),
    "short": (
        lambda path: save_scales(path, lambda s: s.update({W2: s[W2][:5].clone()})),
        r"has shape \(5,\), and the weight 64 rows",
    ),
    "not finite": (
        lambda path: save_scales(path, lambda s: s.update({W2: s[W2] / 0})),
        "not positive numbers",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line(folders, tmp_path, damage):
    spoil, message = DAMAGES[damage]
    copy = shutil.copytree(folders / "2", tmp_path / "copy")
    spoil(copy)
    with pytest.raises(InputError, match=message) as error:
        MetaSource(copy)
    assert "\n" not in str(error.value)
