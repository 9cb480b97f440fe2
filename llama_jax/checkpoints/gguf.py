"""GGUF files, read only: llama.cpp's format, with quantised weights made float again.

F32, F16 and BF16 tensors keep their dtype; the block formats become float32 through the `gguf`
package. Query and key rows are reordered to our RoPE pairing (`rope_layout.py`).
"""

from functools import cached_property
from pathlib import Path

import ml_dtypes
import numpy as np
from gguf import dequantize
from gguf.constants import GGMLQuantizationType as Kind

from llama_jax.checkpoints.gguf_config import config_from_gguf
from llama_jax.checkpoints.gguf_file import GgufFile
from llama_jax.checkpoints.interface import Assets, TensorSpec
from llama_jax.checkpoints.parameter_names import LayerTensor, layer_tensors
from llama_jax.checkpoints.rope_layout import half_split_from_interleaved
from llama_jax.errors import InputError

_FLOATS = {
    Kind.F32: np.dtype(np.float32),
    Kind.F16: np.dtype(np.float16),
    Kind.BF16: np.dtype(ml_dtypes.bfloat16),
}
_BLOCK_FORMATS = frozenset(
    (
        Kind.Q8_0,
        Kind.Q4_0,
        Kind.Q4_1,
        Kind.Q5_0,
        Kind.Q5_1,
        Kind.Q2_K,
        Kind.Q3_K,
        Kind.Q4_K,
        Kind.Q5_K,
        Kind.Q6_K,
    )
)
# `gguf.dequantize` needs twice its result; in pieces, memory stays near one result.
_PIECE_BYTES = 16 << 20
_ROPE_DIVISORS = "rope_freqs.weight"


class GgufSource:
    """A `.gguf` file of architecture `llama`. Opening reads the header only."""

    format = "gguf"

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = GgufFile(self.path)
        stored = self._file.tensors
        for name, tensor in stored.items():
            if tensor.kind not in _FLOATS and tensor.kind not in _BLOCK_FORMATS:
                raise InputError(
                    f"{self.path}: {name[:200]!r} is stored as {tensor.kind.name}, which is not "
                    "supported; take a file in F16, Q8_0, Q4_0, Q4_1 or a K-quant"
                )
        self.config = config_from_gguf(
            self._file.metadata,
            vocab_size=stored["token_embd.weight"].shape[0] if "token_embd.weight" in stored else 0,
            tied_embeddings="output.weight" not in stored,
            rope_divisors=self._rope_divisors(),
            file=self.path,
        )
        self.tensors: dict[str, TensorSpec] = {}
        self._layers: dict[str, LayerTensor] = {}
        for layer in layer_tensors(self.config):
            name = layer.foreign_name("gguf")
            if name not in stored:
                raise InputError(f"{self.path}: tensor {name} is missing; fetch the file again")
            if stored[name].shape != layer.foreign_shape:
                raise InputError(
                    f"{self.path}: {name} has shape {list(stored[name].shape)}, but its metadata "
                    f"make it {list(layer.foreign_shape)}"
                )
            dtype = _FLOATS.get(stored[name].kind, np.dtype(np.float32))
            self.tensors[layer.name] = TensorSpec(layer.shape, dtype)
            self._layers[layer.name] = layer
        known = {layer.foreign_name("gguf") for layer in self._layers.values()} | {_ROPE_DIVISORS}
        if unknown := sorted(stored.keys() - known):
            raise InputError(
                f"{self.path}: tensor {unknown[0][:200]!r} is not part of a Llama and is not "
                "supported"
            )

    @cached_property
    def assets(self) -> Assets:
        """Tokenizer files in Hugging Face's form, made from the metadata, and the stop tokens."""
        from llama_jax.tokenizers.gguf_tokenizer import huggingface_files_from_gguf

        metadata = self._file.metadata
        files = huggingface_files_from_gguf(metadata, place=str(self.path))
        return Assets(files, _generation(metadata))

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The tensor `name` in our layout, or its part `index`.

        Float formats are views of the file, except query and key; of the others only the slice
        along the first dimension is made float.
        """
        layer = self._layers[name]
        start, stop, step = (index[0] if index else slice(None)).indices(layer.shape[0])
        if step != 1:
            raise ValueError("steps are not supported")
        stop = max(start, stop)
        # A 1-D tensor is one stored row; else an entry of our first dimension is `group` rows.
        if len(layer.shape) == 1:
            return self._rows(layer, 0, 1)[0, start:stop]
        group = layer.foreign_shape[0] // layer.shape[0]
        rows = self._rows(layer, start * group, stop * group)
        part = rows.reshape(stop - start, *layer.shape[1:])
        if layer.row.rotated:
            part = half_split_from_interleaved(part)
        return part[(slice(None), *index[1:])]

    def _rows(self, layer: LayerTensor, start: int, stop: int) -> np.ndarray:
        """Stored rows as floats, `[rows, row length]`."""
        name = layer.foreign_name("gguf")
        kind, row_length = self._file.tensors[name].kind, layer.foreign_shape[-1]
        stored = self._file.rows(name, start, stop)
        if kind in _FLOATS:
            return stored.reshape(-1).view(_FLOATS[kind]).reshape(stop - start, row_length)
        result = np.empty((stop - start, row_length), np.float32)
        piece = max(1, _PIECE_BYTES // (4 * row_length))
        for i in range(0, stop - start, piece):
            result[i : i + piece] = dequantize(stored[i : i + piece], kind)
        return result

    def _rope_divisors(self) -> np.ndarray | None:
        if _ROPE_DIVISORS not in self._file.tensors:
            return None
        tensor = self._file.tensors[_ROPE_DIVISORS]
        if tensor.kind != Kind.F32 or len(tensor.shape) != 1:
            raise InputError(f"{self.path}: {_ROPE_DIVISORS} must be one row of F32")
        return self._file.rows(_ROPE_DIVISORS, 0, 1).reshape(-1).view(np.float32)


def _generation(metadata) -> dict:
    """Generation defaults: llama.cpp stops at the end of text, of a turn and of a tool message."""
    ids = {
        key: metadata.get(f"tokenizer.ggml.{key}_token_id")
        for key in ("bos", "eos", "eot", "eom", "padding")
    }
    stops = list(dict.fromkeys(ids[key] for key in ("eos", "eot", "eom") if ids[key] is not None))
    fields = {
        "bos_token_id": ids["bos"],
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": ids["padding"],
    }
    return {key: value for key, value in fields.items() if value is not None}
