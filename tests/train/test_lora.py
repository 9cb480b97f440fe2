"""LoRA: the product, what is trained and what is not, and the files of PEFT."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train.loop
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.checkpoints.merged_source import merge_command
from llama_jax.checkpoints.peft_adapter import read_adapter
from llama_jax.checkpoints.quantize import quantize_command
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.errors import InputError
from llama_jax.kernels.matmul import reference
from llama_jax.kernels.matmul.lora import with_lora
from llama_jax.model import REFERENCE, forward, init_params, logits
from llama_jax.quantization.lora_tensor import LoraTensor
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh, param_shardings
from train.lora import LoraConfig, abstract_adapters, init_adapters, with_adapters
from train.losses.cross_entropy import CrossEntropy
from train.losses.dpo import Dpo
from train.run_checks import check_run

from .chat_runs import MODEL, dpo, sft, write_data
from .losses.pair_batches import make_pairs, network_on, pack, place

pytestmark = pytest.mark.usefixtures("quick_compilation")

LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Of the eight that there are: two cores simulate them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:2]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and a base model with random weights, whole and in 8 bits."""
    folder = tmp_path_factory.mktemp("lora")
    write_data(folder)
    params = init_params(MODEL, jax.random.key(0))
    save_checkpoint(folder / "base", MODEL, params, format="hf")
    for file in (folder / "tokenizer").iterdir():
        (folder / "base" / file.name).write_bytes(file.read_bytes())
    quantize_command(str(folder / "base"), folder / "int8", recipe="int8", quiet=True)
    return folder


def adapters_of(targets=LORA.targets):
    """Random changes, other than new ones also in `up`."""
    lora = dataclasses.replace(LORA, targets=targets)
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    with on_mesh(mesh):
        abstract = abstract_adapters(MODEL, lora, mesh, dtype=jnp.float32)
        new = init_adapters(abstract, jax.random.key(1))
    leaves, tree = jax.tree.flatten(new)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    made = [0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return lora, new, jax.tree.unflatten(tree, made)


@pytest.mark.parametrize("contracted", [1, 2])
def test_a_product_is_that_of_the_sum(contracted):
    rng = np.random.default_rng(0)
    outputs, inputs = ((5, 4), (6,)) if contracted == 1 else ((6,), (5, 4))
    base, down, up = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((*outputs, *inputs), (3, *inputs), (*outputs, 3))
    )
    x = rng.normal(size=(2, 7, *inputs)).astype(np.float32)
    weight = LoraTensor(base, down, up, scaling=0.5)
    assert weight.shape == base.shape and weight.ndim == base.ndim
    whole = base + 0.5 * np.tensordot(up, down, axes=1)
    expected = reference.matmul(x, whole, contracted=contracted)
    found = with_lora(reference.matmul)(x, weight, contracted=contracted)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert with_lora(reference.matmul) is with_lora(reference.matmul)


def test_a_new_change_changes_nothing_and_another_is_the_merged_model(folder, tmp_path):
    operators = dataclasses.replace(REFERENCE, matmul=with_lora(reference.matmul))
    config, base = load_checkpoint(folder / "base")
    tokens = np.arange(24).reshape(2, 12)
    lora, new, random = adapters_of()
    plain = forward(base, tokens, config=config)
    same = forward(with_adapters(base, new, lora), tokens, config=config, operators=operators)
    np.testing.assert_array_equal(same, plain)
    changed = forward(with_adapters(base, random, lora), tokens, config=config, operators=operators)
    assert np.abs(changed - plain).max() > 0.1


def test_a_mesh_splits_changes_and_gives_the_same_gradients(folder):
    """float32, summed in another order: measured 8e-7 of each leaf's largest."""
    _, base = load_checkpoint(folder / "base")
    lora, _, random = adapters_of()
    batch = pack(make_pairs(4), pairs_per_row=1, row_length=32)

    def gradients(shape):
        mesh = make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])
        network = network_on(mesh, MODEL)
        operators = dataclasses.replace(network.operators, matmul=with_lora(reference.matmul))
        network = dataclasses.replace(network, lora=lora, operators=operators)
        with on_mesh(mesh):
            abstract = abstract_adapters(MODEL, lora, mesh, dtype=jnp.float32)
            split = jax.tree.map(lambda leaf: leaf.sharding, abstract)
            adapters = jax.device_put(random, split)
            frozen = {"base": jax.device_put(base, param_shardings(MODEL, mesh))}

            @jax.jit
            def gradient(adapters, frozen, batch):
                def total(adapters):
                    whole = network.assemble(adapters, frozen)
                    return CrossEntropy().sums(whole, frozen, batch, network=network).total

                return jax.grad(total)(adapters)

            return adapters, jax.device_get(gradient(adapters, frozen, place(batch, mesh)))

    _, expected = gradients(MeshShape(fsdp=1))
    adapters, found = gradients(MeshShape(fsdp=4, tensor=2))
    query = adapters["blocks"]["attention"]["query"]
    assert query["lora_down"].addressable_shards[0].data.shape == (2, 4, 8)
    assert query["lora_up"].addressable_shards[0].data.shape == (2, 2, 8, 4)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(leaf - other).max() <= 5e-6 * np.abs(other).max()


def run_of(run, folder, name, base, **fields):
    return dataclasses.replace(
        run,
        output=str(folder / name),
        initial_weights=str(folder / base),
        lora=LORA,
        **fields,
    )


def lines_of(run):
    text = (Path(run.output) / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "train"]


@pytest.mark.parametrize("base", ["base", "int8"])
def test_sft_learns_and_leaves_an_adapter_and_the_sum(folder, base, tmp_path):
    run = run_of(sft(folder), folder, f"sft_{base}", base)
    check_run(run, 2)
    train.loop.train(run, quiet=True)
    first, *_, last = lines_of(run)
    # Embedding and head are random and stay so: there is not much that it can learn.
    assert last["loss"] < 0.95 * first["loss"]
    out = Path(run.output)
    config, weights = load_checkpoint(out / "weights")
    fields = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["peft_type"]) == (4, 8.0, "LORA")
    assert set(fields["target_modules"]) >= {"q_proj", "down_proj"}
    adapter = read_adapter(out / "adapter", MODEL)
    assert len(adapter.down) == 7 * MODEL.num_layers and adapter.scaling == 2.0
    merge_command(str(folder / base), out / "adapter", tmp_path / "merged", quiet=True)
    _, merged = load_checkpoint(tmp_path / "merged")
    jax.tree.map(np.testing.assert_array_equal, merged, weights)
    _, before = load_checkpoint(folder / "base")
    np.testing.assert_allclose(weights["embedding"], before["embedding"], atol=1e-2)
    query = weights["blocks"]["attention"]["query"] - before["blocks"]["attention"]["query"]
    assert np.abs(query).max() > 1e-3


def test_it_goes_on_from_its_checkpoint(folder):
    whole = lines_of(run_of(sft(folder), folder, "sft_base", "base"))
    half = run_of(sft(folder), folder, "half", "base")
    stage = half.stages[0]
    shorter = dataclasses.replace(stage, num_tokens=stage.num_tokens // 2)
    train.loop.train(dataclasses.replace(half, stages=(shorter,)), quiet=True)
    train.loop.train(half, quiet=True)
    assert [line["loss"] for line in lines_of(half)] == [line["loss"] for line in whole]


def test_dpo_in_memory_needs_no_second_model(folder):
    run = run_of(dpo(folder, loss=Dpo(reference="in_memory")), folder, "dpo_lora", "base")
    train.loop.train(run, quiet=True)
    first, *_, last = lines_of(run)
    assert first["preference_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert last["loss"] < first["loss"] and last["reference_kl"] != 0


@pytest.mark.filterwarnings("ignore")
def test_peft_reads_ours_and_we_read_peft_s(folder, tmp_path):
    """float32: measured 3e-7 where logits are 0.6."""
    peft = pytest.importorskip("peft", reason="needs peft without its dependencies, see .ci/run")
    import torch
    from transformers import AutoModelForCausalLM

    tokens = np.arange(40).reshape(2, 20)
    out = folder / "sft_base"
    config, weights = load_checkpoint(out / "weights")
    ours = logits(weights, forward(weights, tokens, config=config), config=config)
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    model = peft.PeftModel.from_pretrained(model, out / "adapter")
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits
    np.testing.assert_allclose(ours, theirs, atol=2e-6)

    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    lora = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "o_proj", "up_proj"])
    model = peft.get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "theirs")
    merge_command(str(folder / "base"), tmp_path / "theirs", tmp_path / "merged", quiet=True)
    config, weights = load_checkpoint(tmp_path / "merged")
    ours = logits(weights, forward(weights, tokens, config=config), config=config)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"peft_type": "IA3"}, "peft_type = IA3 is not supported"),
        ({"r": 5}, "lora_A.weight must be there, of shape .5, 32."),
        ({"r": "4"}, "r must be an integer"),
    ],
)
def test_another_adapter_is_refused(folder, tmp_path, change, message):
    source = folder / "sft_base" / "adapter"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    fields = json.loads((source / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields | change))
    with pytest.raises(InputError, match=message):
        read_adapter(tmp_path, MODEL)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"initial_weights": None}, "lora: needs initial_weights"),
        ({"lora": LoraConfig(0, 1.0)}, "lora.rank: must be at least 1"),
        ({"lora": LoraConfig(1, 0.0)}, "lora.alpha: must be over 0"),
        ({"lora": LoraConfig(1, 1.0, ("wq",))}, "lora.targets: 'wq' is not one of query, key"),
        ({"lora": LoraConfig(1, 1.0, ())}, "lora.targets: must have at least one"),
        ({"matmul": "fp8_rowwise"}, "lora: needs matmul bfloat16"),
    ],
)
def test_what_cannot_be_is_refused(folder, fields, message):
    run = dataclasses.replace(run_of(sft(folder), folder, "x", "base"), **fields)
    if "matmul" in fields:
        run = dataclasses.replace(run, model=dataclasses.replace(MODEL, num_layers=4))
    with pytest.raises(InputError, match=message):
        check_run(run, 2)
