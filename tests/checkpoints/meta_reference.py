"""Meta's own code at work, as a program: the oracle of `test_meta_parity.py`.

Run as one process per model-parallel rank: `meta_reference.py RANK WORLD_SIZE STORE JOBS`, where
STORE is a file for the processes to meet at and JOBS a JSON file, a list of objects with `do`:

* `read`: load `folder` as Meta's loader does (resharding to WORLD_SIZE); logits go to `logits`.
* `write`: make a random network with the arguments of `folder`/params.json, save every rank's state
  dict with plain `torch.save` into `folder`, and the logits to `logits`.
* `split`: re-cut the files of `folder` into `times` as many in `into`, by Meta's `reshard_mp`.
* `quantize`: the files of `folder` to FP8, all layers but the first and the last, every shard for
  itself, with the scales file that Meta's script writes beside.
* `fp8`: load `folder`, one shard a process, and its FP8 scales with Meta's own FP8 loader, and run
  its FP8 feed-forward; logits go to `logits`. FBGEMM's two operators, which need a GPU, are plain
  torch in float32.
* `build`: `Llama3.build` on `folder`, which must take params.json and load all weights strictly.

Tokens and positions come from `inputs.npz` beside JOBS. Positions are set by handing the network
the rotations of those positions: its `forward` itself would count from 0.

Separate processes because the reference sets PyTorch's default dtype and process groups globally.
"""

import json
import sys
import types
from pathlib import Path
from unittest import mock

import fairscale.nn.model_parallel.initialize as model_parallel
import numpy as np
import torch
from llama_models.checkpoint import maybe_reshard_state_dict, reshard_mp
from llama_models.llama3.args import ModelArgs
from llama_models.llama3.model import Transformer, precompute_freqs_cis

# Only pictures need it, but other modules import it all the same.
TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def network(folder: Path, inputs) -> Transformer:
    batch, length = inputs["tokens"].shape
    fields = json.loads((folder / "params.json").read_text())
    model = Transformer(ModelArgs(max_batch_size=batch, max_seq_len=length, **fields))
    args = model.params
    rotations = precompute_freqs_cis(
        args.dim // args.n_heads,
        int(inputs["positions"].max()) + 1,
        args.rope_theta,
        args.use_scaled_rope,
    )
    model.freqs_cis = rotations[torch.from_numpy(inputs["positions"])]
    return model


def save_logits(model: Transformer, inputs, path: str) -> None:
    logits = model(torch.from_numpy(inputs["tokens"]), 0).numpy()
    if model_parallel.get_model_parallel_rank() == 0:
        np.save(path, logits)


def read(job, inputs):
    folder = Path(job["folder"])
    fields = json.loads((folder / "params.json").read_text())
    state = maybe_reshard_state_dict(sorted(folder.glob("*.pth")), n_kv_heads=fields["n_kv_heads"])
    torch.set_default_dtype(torch.float32)  # the loader leaves bfloat16 behind
    model = network(folder, inputs)
    model.load_state_dict(state, strict=True)
    save_logits(model, inputs, job["logits"])


def write(job, inputs):
    folder, rank = Path(job["folder"]), model_parallel.get_model_parallel_rank()
    model = network(folder, inputs)
    of_rank, of_all = torch.Generator().manual_seed(rank), torch.Generator().manual_seed(99)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.1 * torch.randn(weight.shape, generator=of_all))
            else:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=of_rank))
    torch.save(model.state_dict(), folder / f"consolidated.{rank:02d}.pth")
    save_logits(model, inputs, job["logits"])


def split(job, inputs):
    if model_parallel.get_model_parallel_rank() != 0:
        return
    paths = sorted(Path(job["folder"]).glob("*.pth"))
    for number, path in enumerate(paths):
        state = torch.load(path, weights_only=True)
        for part in range(job["times"]):
            shard = reshard_mp([state], job["times"], part, repeat_qk_qv=job["kv_copies"])
            name = f"consolidated.{number * job['times'] + part:02d}.pth"
            torch.save(shard, Path(job["into"]) / name)


def build(job, inputs):
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in TORCHVISION}):
        from llama_models.llama3.generation import Llama3

        model = Llama3.build(job["folder"], max_seq_len=8, max_batch_size=1, device="cpu").model
    torch.save(model.state_dict(), job["state"])
    torch.set_default_dtype(torch.float32)


def quantize_fp8_per_row(x, num_tokens=None, bound=None):
    largest = x.float().abs().amax(-1, keepdim=True)
    scale = largest.clamp(min=1e-12, max=None if bound is None else bound.item()) / 448
    values = (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return values, scale.squeeze(-1)


def f8f8bf16_rowwise(x, weight, x_scale, weight_scale, use_fast_accum=True):
    return (x.float() @ weight.float().T) * x_scale[:, None] * weight_scale[None]


def quantize(job, inputs):
    folder, rank = Path(job["folder"]), model_parallel.get_model_parallel_rank()
    last = json.loads((folder / "params.json").read_text())["n_layers"] - 1
    path = folder / f"consolidated.{rank:02d}.pth"
    state, scales = torch.load(path, weights_only=True), {}
    for layer in range(1, last):
        for part in ("w1", "w2", "w3"):
            name = f"layers.{layer}.feed_forward.{part}.weight"
            state[name], scale = quantize_fp8_per_row(state[name])
            scales[f"{layer}_feed_forward.{part}_{rank}"] = scale
    torch.save(state, path)
    torch.save(scales, folder / f"fp8_scales_{rank}.pt")


def fp8(job, inputs):
    folder, rank = Path(job["folder"]), model_parallel.get_model_parallel_rank()
    # Of these, only names are used: torchao's for a recipe that is not asked for.
    torchao = types.ModuleType("torchao.quantization.GPTQ")
    torchao.Int8DynActInt4WeightLinear = torch.nn.Linear
    absent = ("fbgemm_gpu", "fbgemm_gpu.experimental", "fbgemm_gpu.experimental.gen_ai")
    modules = {
        name: types.ModuleType(name) for name in (*absent, "torchao", "torchao.quantization")
    }
    modules |= {name: mock.MagicMock() for name in TORCHVISION}
    operators = types.SimpleNamespace(
        quantize_fp8_per_row=quantize_fp8_per_row, f8f8bf16_rowwise=f8f8bf16_rowwise
    )
    with (
        mock.patch.dict(sys.modules, modules | {torchao.__name__: torchao}),
        mock.patch.object(torch.ops, "fbgemm", operators, create=True),
    ):
        from llama_models.llama3.quantization.loader import convert_to_fp8_quantized_model

        model = network(folder, inputs)
        state = torch.load(folder / f"consolidated.{rank:02d}.pth", weights_only=True)
        model.load_state_dict(state, strict=True)
        model = convert_to_fp8_quantized_model(model, str(folder), device=torch.device("cpu"))
        save_logits(model, inputs, job["logits"])


def main():
    rank, world_size, store, jobs_path = sys.argv[1:]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world_size)
    )
    model_parallel.initialize_model_parallel(int(world_size))
    inputs = np.load(Path(jobs_path).with_name("inputs.npz"))
    for job in json.loads(Path(jobs_path).read_text()):
        functions = (read, write, split, quantize, fp8, build)
        {function.__name__: function for function in functions}[job["do"]](job, inputs)
        torch.distributed.barrier()
    model_parallel.destroy_model_parallel()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
