"""A checkpoint with a LoRA adapter added to its weights, as a source of tensors like any other; and
`llama-jax merge`."""

from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.dequantized import DequantizedSource
from llama_jax.checkpoints.destination import check_apart
from llama_jax.checkpoints.dtypes import DtypeName, cast_tensor, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.host_only import stay_on_host
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import TensorSource, quantized_names
from llama_jax.checkpoints.peft_adapter import PeftAdapter, read_adapter


class MergedSource:
    """`source`, whose weights are float ones, plus `adapter`; see `TensorSource`. Sums are made in
    float32 and rounded to the dtype of the weight once."""

    def __init__(self, source: TensorSource, adapter: PeftAdapter) -> None:
        self._source, self._adapter = source, adapter
        self.format, self.path = source.format, source.path
        self.config, self.assets, self.tensors = source.config, source.assets, source.tensors

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name`, or its part `index`."""
        if name not in self._adapter.down:
            return self._source.read(name, index)
        spec = self.tensors[name]
        whole = self._source.read(name).astype(np.float32)
        whole += self._adapter.change(name).reshape(spec.shape)
        return cast_tensor(whole, spec.dtype, name)[index]


def merge_command(
    base: tyro.conf.Positional[str],
    adapter: tyro.conf.Positional[Path],
    destination: tyro.conf.Positional[Path],
    *,
    to: Literal["hf", "meta", "orbax"] = "orbax",
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Adds a LoRA adapter to the weights of its base model: a checkpoint that needs no adapter.

    Example: llama-jax merge llama-8b runs/lora/adapter llama-8b-tuned --to hf

    Args:
      base: the checkpoint that the adapter was trained on, of any format; quantised weights are
        multiplied out, in --dtype or bfloat16.
      adapter: a folder as the PEFT library writes it.
      destination: folder to be created.
      to: format to write.
      dtype: for every tensor; by default each has that of the base.
      overwrite: replace a checkpoint at the destination, once the new one is whole.
      quiet: print notes and errors only.
    """
    stay_on_host()
    source = open_source(resolve_source(base))
    changes = read_adapter(adapter, source.config)
    check_apart(adapter, destination)
    if quantized_names(source.tensors):
        source = DequantizedSource(source, dtype_named(dtype or "bfloat16"))
    merged = MergedSource(source, changes)
    done = convert(merged, destination, to=to, dtype=dtype, overwrite=overwrite, quiet=quiet)
    if not quiet:
        print(f"{destination}: {len(changes.down)} weights changed, {done}, verified")
