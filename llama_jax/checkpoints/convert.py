"""Any checkpoint format to another: tensor by tensor, then read back and compared.

A tensor is read (a memory map where the format allows), cast if asked, given to the sink, and
forgotten. The sinks of Hugging Face's and Meta's formats hold that one tensor; Orbax's gathers up
to 512 MiB while as much is being written (`orbax_sink.py`). Memory does not grow with the model
either way. What was written is then opened as a reader would
and every tensor's CRC-32 compared; at 4 GB/s it costs little beside the disk.
"""

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from llama_jax.checkpoints.carried_assets import carried_assets
from llama_jax.checkpoints.dequantized import DequantizedSource
from llama_jax.checkpoints.destination import check_apart, check_destination
from llama_jax.checkpoints.dtypes import DtypeName, cast_tensor, dtype_named, is_lossless
from llama_jax.checkpoints.formats import open_source, sink_class
from llama_jax.checkpoints.host_only import stay_on_host
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import TensorSource, TensorSpec, quantized_names
from llama_jax.checkpoints.peak_memory import PeakMemory
from llama_jax.checkpoints.staging import staged_folder
from llama_jax.checkpoints.transfer_progress import transfer_progress
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
      num_bytes: bytes of tensors written.
      seconds: the whole of it, reading back and bringing to the disk included.
      peak_anonymous_bytes: most RssAnon of the process meanwhile, or None where unknown.
    """

    num_bytes: int
    seconds: float
    peak_anonymous_bytes: int | None

    def __str__(self) -> str:
        memory = "not measured"
        if self.peak_anonymous_bytes is not None:
            memory = f"{self.peak_anonymous_bytes / 2**20:,.0f} MiB"
        return (
            f"{self.num_bytes:,} bytes in {self.seconds:.1f} s "
            f"({self.num_bytes / self.seconds / 1e6:,.0f} MB/s), peak anonymous memory {memory}"
        )


def convert(
    source: str | Path | TensorSource,
    destination: str | Path,
    *,
    to: str,
    dtype: str | None = None,
    shards: int | None = None,
    chat_template: str | None = None,
    verify: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> Conversion:
    """Writes the checkpoint `source` to the new folder `destination`.

    Args:
      source: path, Hugging Face repository id, or an opened source.
      to: `orbax`, `hf` or `meta`; may be the format it has.
      dtype: `float32`, `bfloat16` or `float16` for every tensor, which multiplies quantised weights
        out; by default each keeps its own dtype or format.
      shards: number of files, for `hf` (at most so many) and `meta`.
      chat_template: `llama31` puts Llama 3.1's chat template into tokenizer files made from Meta's.
      verify: whether to read everything back.
      overwrite: whether `destination` may be a checkpoint, and nothing else, to be replaced at the
        end.
      quiet: no progress on stderr.
      say: gets one line for each thing worth knowing.

    Raises `InputError` or `OSError`; then `destination` is as it was.
    """
    start = time.monotonic()
    destination = Path(destination)
    check_destination(destination, replace=overwrite)
    make_sink = sink_class(to)
    with PeakMemory() as memory:
        if isinstance(source, str | Path):
            source = open_source(resolve_source(str(source)))
        check_apart(source.path, destination)
        if dtype is not None and (quantized := quantized_names(source.tensors)):
            say(f"note: {len(quantized)} quantised weights are multiplied out and no longer so")
            source = DequantizedSource(source, dtype_named(dtype))
        specs = source.tensors
        if dtype is not None:
            wanted = dtype_named(dtype)
            lossy = {s.dtype.name for s in specs.values() if not is_lossless(s.dtype, wanted)}
            if lossy:
                say(f"note: {', '.join(sorted(lossy))} to {dtype} rounds the weights")
            specs = {name: TensorSpec(spec.shape, wanted) for name, spec in specs.items()}
        config = source.config if to == "orbax" else source.config.fold_ntk()
        if config != source.config:
            say(f"note: ntk scaling has no name there; written as rope_theta {config.rope_theta}")
        assets = carried_assets(source.assets, to=to, config=config, chat_template=chat_template)
        options = sink_options(to, config, specs, shards)
        total = sum(spec.num_bytes for spec in specs.values())
        with staged_folder(destination, num_bytes=total, replace=overwrite, say=say) as folder:
            sink = make_sink(folder, config, specs, assets, **options)
            checksums = {}
            with transfer_progress("writing", total, quiet=quiet) as advance:
                for name, spec in specs.items():
                    tensor = cast_tensor(source.read(name), spec.dtype, name)
                    checksums[name] = checksum(tensor)
                    sink.write(name, tensor)
                    del tensor
                    advance(spec.num_bytes)
                sink.finish()
            if verify:
                _verify(folder, config, checksums, quiet=quiet)
    return Conversion(total, time.monotonic() - start, memory.peak_bytes)


def sink_options(
    to: str, config: ModelConfig, specs: Mapping[str, TensorSpec], shards: int | None
) -> dict[str, int]:
    """The keyword arguments that the sink of format `to` needs for `shards` files.

    By default Hugging Face shards have 5 GB, and Meta's are as many as Meta has: 8 from 70B on.
    """
    if shards is not None and shards < 1:
        raise InputError(f"--shards: {shards} is not a number of files; give 1 or more")
    if to == "meta":
        return {"num_shards": shards or (8 if config.num_layers >= 80 else 1)}
    if shards is None:
        return {}
    if to == "orbax":
        raise InputError("--shards: an Orbax checkpoint has one file a tensor; leave it out")
    return {"shard_bytes": _shard_bytes([spec.num_bytes for spec in specs.values()], shards)}


def checksum(tensor: np.ndarray) -> int:
    """CRC-32 of the values in C order."""
    return zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))


def convert_command(
    source: tyro.conf.Positional[str],
    destination: tyro.conf.Positional[Path],
    *,
    to: Literal["hf", "meta", "orbax"],
    dtype: DtypeName | None = None,
    shards: int | None = None,
    chat_template: Literal["llama31"] | None = None,
    verify: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Converts a checkpoint from any format (Hugging Face, Meta, Orbax, GGUF) to another.

    Streams the tensors, reads the result back and compares it. The destination appears
    only when it is whole; an interrupted conversion is simply run again.

    Example: llama-jax convert meta-llama/Llama-3.1-8B-Instruct llama-8b --to orbax

    Args:
      source: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      destination: folder to be created.
      to: format to write.
      dtype: for every tensor, quantised weights too, which are multiplied out; by default each
        keeps its own.
      shards: number of files (hf: at most so many; meta: model-parallel shards).
      chat_template: put Llama 3.1's chat template into tokenizer files made from Meta's
        tokenizer.model; for Instruct models.
      verify: read everything back and compare.
      overwrite: replace a checkpoint at the destination, once the new one is whole; a folder that
        holds anything else is refused.
      quiet: print notes and errors only.
    """
    stay_on_host()
    done = convert(
        source,
        destination,
        to=to,
        dtype=dtype,
        shards=shards,
        chat_template=chat_template,
        verify=verify,
        overwrite=overwrite,
        quiet=quiet,
    )
    if not quiet:
        print(f"{destination}: {done}{', verified' if verify else ''}")


def _verify(folder: Path, config: ModelConfig, checksums: dict[str, int], *, quiet: bool) -> None:
    """Raises `InputError` if the checkpoint in `folder` is not what was given to the sink."""
    written = open_source(folder)
    # Meta's files always have a head; whether it is tied is read from the values.
    tied = written.config.tied_embeddings
    if dataclasses.replace(config, tied_embeddings=tied) != written.config:
        raise InputError(f"{folder}: read back, its config is not the one written; report this")
    total = sum(spec.num_bytes for spec in written.tensors.values())
    with transfer_progress("verifying", total, quiet=quiet) as advance:
        # Backwards, because what was written last is most likely still in memory.
        for name, spec in reversed(written.tensors.items()):
            expected = checksums.get(name, checksums["embedding"] if name == "head" else None)
            if checksum(written.read(name)) != expected:
                raise InputError(
                    f"{folder}: {name}, read back, is not what was written; check the disk and the "
                    "memory of this machine and convert again"
                )
            advance(spec.num_bytes)


def _shard_bytes(sizes: list[int], shards: int) -> int:
    """The least size of a shard with which filling shards in order takes at most `shards`."""

    def count(limit: int) -> int:
        number, room = 1, limit
        for size in sizes:
            if size > room and room < limit:
                number, room = number + 1, limit
            room -= size
        return number

    low, high = math.ceil(sum(sizes) / shards), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) <= shards else (middle + 1, high)
    return low
