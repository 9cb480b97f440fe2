"""A model and an engine for it, as the commands that answer many rows want them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from infer.cache_dtypes import CacheDtype, cache_dtype_named
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from infer.engine.engine import Engine
    from infer.engine.settings import Speculation
    from infer.loaded_model import LoadedModel


@dataclass(frozen=True)
class EngineOptions:
    """How the model is run.

    Attributes:
      rows: answered at once; by default what suits the device.
      max_length: longest prompt and answer together, in tokens; by default the model's context.
      cache_gigabytes: memory for keys and values; by default what is free on the device.
      dtype: of weights and cache; as stored by default.
      kv_cache_dtype: of keys and values, by default the weights'; int8 and fp8 have a scale for
        each vector.
      devices: that hold the model together, each a part of every weight; of several processes, all
        that they have.
      guesses: tokens guessed at each step, at most 16, and checked by the model in one go; 0 for
        none. Answers stay the same.
      draft_model: a smaller model with the same tokenizer that guesses; without one, guesses are
        what followed the last tokens when they last occurred.
      paged_attention: while decoding; mosaic_gpu is for Hopper GPUs and not yet measured.
      matmul: of quantised weights while decoding; the kernels are for Hopper GPUs and for TPUs, and
        not yet measured.
    """

    rows: int | None = None
    max_length: int | None = None
    cache_gigabytes: float | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    kv_cache_dtype: CacheDtype | None = None
    devices: int = 1
    guesses: int = 0
    draft_model: str | None = None
    paged_attention: Literal["auto", "reference", "chunked", "mosaic_gpu", "ragged_tpu"] = "auto"
    matmul: Literal["xla", "weight_only_gpu", "weight_only_tpu"] = "xla"

    def __post_init__(self):
        for name in ("rows", "max_length", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.cache_gigabytes is not None and not self.cache_gigabytes > 0:
            raise InputError(f"--cache-gigabytes must be above 0, not {self.cache_gigabytes}")
        if not 0 <= self.guesses <= 16:
            raise InputError(f"--guesses must be from 0 to 16, not {self.guesses}")
        if self.draft_model is not None and not self.guesses:
            raise InputError("--draft-model guesses nothing without --guesses: add --guesses 4")


EngineFlags = Annotated[EngineOptions, tyro.conf.arg(name="", help="")]
"""The options as flags of a command, without a prefix."""


def load_engine(
    path: str | Path,
    options: EngineOptions,
    *,
    say: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> "tuple[LoadedModel, Engine]":
    """The model at `path` and its engine, which is not compiled yet.

    Args:
      say: is told which kernels were chosen.
      settings: further fields of `EngineSettings`, and `beside` (see `engine_settings`).

    Raises:
      InputError: the checkpoint is incomplete or damaged, an option does not suit it, or there is
        too little memory.
    """
    from infer.engine.engine import Engine
    from infer.engine.sizing import engine_settings
    from infer.loaded_model import load_model

    path = Path(path)
    mesh = serving_mesh(path, options.devices)
    loaded = load_model(path, dtype=options.dtype, mesh=mesh)
    draft_params, speculation = _speculation(loaded, options, mesh)
    gigabytes = options.cache_gigabytes
    sizes = engine_settings(
        loaded.config,
        loaded.params,
        draft_params=draft_params,
        rows=options.rows,
        max_length=options.max_length,
        cache_dtype=cache_dtype_named(options.kv_cache_dtype),
        cache_bytes=None if gigabytes is None else int(gigabytes * 1e9),
        num_devices=options.devices,
        speculation=speculation,
        **settings,
    )
    engine = Engine(
        loaded.config,
        loaded.params,
        sizes,
        draft_params=draft_params,
        vocab_size=loaded.tokenizer.vocab_size,
        decode_operators=_decode_operators(loaded, options, sizes.num_rows, say),
        mesh=mesh,
    )
    return loaded, engine


def serving_mesh(path: Path, num_devices: int) -> "Mesh | None":
    """The devices that hold the model at `path` together; None for one.

    Raises:
      InputError: there are not so many, the model does not divide among them, or several processes
        have joined and some device of theirs would be left out.
    """
    import jax

    from llama_jax.checkpoints.formats import open_source
    from sharding.mesh import make_mesh
    from sharding.serving_mesh import serving_mesh_shape

    there = jax.devices()
    if num_devices > len(there):
        raise InputError(f"--devices {num_devices}: there are {len(there)}")
    if jax.process_count() > 1 and num_devices != len(there):
        raise InputError(
            f"--devices {num_devices}: the {jax.process_count()} processes of the job have "
            f"{len(there)} devices, and each holds a part of the model: give --devices {len(there)}"
        )
    if num_devices == 1:
        return None
    return make_mesh(serving_mesh_shape(open_source(path).config, num_devices), there[:num_devices])


def _speculation(
    loaded: "LoadedModel", options: EngineOptions, mesh: "Mesh | None"
) -> "tuple[dict[str, Any] | None, Speculation | None]":
    """Weights of the draft model, and how next tokens are guessed; None where there is none."""
    from infer.engine.settings import Speculation
    from infer.loaded_model import load_model
    from llama_jax.checkpoints.huggingface_repo import resolve_source
    from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash

    if not options.guesses:
        return None, None
    if options.draft_model is None:
        return None, Speculation(options.guesses)
    draft = load_model(resolve_source(options.draft_model), dtype=options.dtype, mesh=mesh)
    if tokenizer_hash(draft.tokenizer) != tokenizer_hash(loaded.tokenizer):
        raise InputError(
            f"--draft-model {options.draft_model}: has another tokenizer than the model, so its "
            "guesses would mean other tokens; take one of the same family"
        )
    return draft.params, Speculation(options.guesses, draft.config)


def _decode_operators(loaded: "LoadedModel", options: EngineOptions, num_rows: int, say):
    """Operators of decoding that the options name, checked before anything is compiled."""
    import jax

    from infer.decode_operators import decode_operators_for
    from llama_jax.kernels.select import inference_operators

    operators = decode_operators_for(
        loaded.params,
        loaded.config,
        matmul=options.matmul,
        num_rows=num_rows * (1 + options.guesses),
        say=say,
    )
    here = jax.local_devices()[0]
    _, named = inference_operators(
        here.platform, here.device_kind, paged_attention=options.paged_attention
    )
    if operators is None:
        return named
    return dataclasses.replace(operators, paged_attention=named.paged_attention)
