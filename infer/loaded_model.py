"""A checkpoint made ready to answer: weights, tokenizer, chat format, stop ids, sampling defaults.

Any format will do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.sampling import GREEDY, SamplingParameters
from infer.text_side import TextSide, has_text_apart, load_text_side
from llama_jax.chat import ChatFormat
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from llama_jax.checkpoints.interface import TensorSource

# What Meta's own generation script samples with; its checkpoints do not say.
META_SAMPLING = SamplingParameters(temperature=0.6, top_p=0.9)
# Fields of generation_config.json that change which token is chosen, that we do not have, and the
# values at which they do nothing.
_UNSUPPORTED = {
    "repetition_penalty": (1, None),
    "no_repeat_ngram_size": (0, None),
    "min_p": (0, None),
    "typical_p": (1, None),
    "epsilon_cutoff": (0, None),
    "eta_cutoff": (0, None),
    "num_beams": (1, None),
    "penalty_alpha": (0, None),
    "bad_words_ids": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "sequence_bias": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "min_length": (0, None),
    "min_new_tokens": (0, None),
}


@dataclass(frozen=True)
class LoadedModel:
    """What a command needs to answer prompts.

    Attributes:
      config: the model's numbers.
      params: weights, blocks unstacked.
      tokenizer: text to ids and back.
      chat_format: None for a base model; Llama 3.1's, as an assumption, for Meta's own tokenizer
        file (see `chat_format_for`).
      begins_with_bos: whether plain text is preceded by `tokenizer.bos_id`.
      eos_ids: ids that end an answer.
      sampling: the checkpoint's own defaults.
      notes: one line for each thing the checkpoint asks for and does not get.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    chat_format: ChatFormat | None
    begins_with_bos: bool
    eos_ids: frozenset[int]
    sampling: SamplingParameters
    notes: tuple[str, ...]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text to be continued, BOS included where the model wants one."""
        side = TextSide(self.tokenizer, self.chat_format, self.begins_with_bos)
        return side.encode_plain(text)


def load_model(
    path: str | Path, *, dtype: str | None = None, mesh: "Mesh | None" = None
) -> LoadedModel:
    """Loads the checkpoint at `path` onto the default device, or onto a mesh for serving.

    Args:
      path: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      dtype: float32, bfloat16 or float16; as stored by default.

    Raises:
      InputError: the checkpoint is incomplete or damaged; names the file and what to change.
    """
    from llama_jax.checkpoints.load import load_checkpoint
    from llama_jax.model import refuse_reward_model

    path = resolve_source(str(path))
    source = open_source(path)
    refuse_reward_model(source.config, str(path))
    generation = dict(source.assets.generation)
    apart = has_text_apart(source)
    place = path if apart else path / "generation_config.json"
    sampling = sampling_defaults(generation, file_format=source.format, place=place)
    eos_ids = _eos_ids(generation, place)
    # The text side first: it takes a moment, and its errors should not wait for the weights.
    tokenizer, chat_format, begins_with_bos = load_text_side(path, source)
    if tokenizer.vocab_size > source.config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids and the model only "
            f"{source.config.vocab_size}; take the tokenizer that the model was published with"
        )
    shardings = None if mesh is None else _shardings(source, mesh)
    config, params = load_checkpoint(path, dtype=dtype, shardings=shardings, stacked=False)
    return LoadedModel(
        config=config,
        params=params,
        tokenizer=tokenizer,
        chat_format=chat_format,
        begins_with_bos=begins_with_bos,
        eos_ids=eos_ids or tokenizer.eos_ids,
        sampling=sampling,
        notes=tuple(
            f"note: the checkpoint asks for {name} {value}, which is not supported: left out"
            for name, value in generation.items()
            if name in _UNSUPPORTED and value not in _UNSUPPORTED[name]
        ),
    )


def sampling_defaults(
    generation: Mapping[str, Any], *, file_format: str, place: str | Path
) -> SamplingParameters:
    """What `generation_config.json` says: without `do_sample` the most likely token is taken, as in
    transformers. An absent `top_k` means none, as for Meta and vLLM; transformers would take 50.
    Meta's folders have no such file and get Meta's numbers.

    Raises:
      InputError: a field of another type or out of range; names `place`.
    """
    if file_format == "meta" and not generation:
        return META_SAMPLING
    fields = TypedFields(generation, place)
    if not fields.boolean("do_sample", False):
        return GREEDY
    return make_from_file(
        SamplingParameters,
        place,
        temperature=fields.number("temperature", 1.0),
        top_p=fields.number("top_p", 1.0),
        top_k=fields.integer("top_k", 0),
    )


def _shardings(source: "TensorSource", mesh: "Mesh") -> dict[str, Any]:
    """Where the weights lie on `mesh`, blocks unstacked."""
    from llama_jax.checkpoints.quantized_source import abstract_unstacked_params
    from sharding.placement import quantized_shardings, unstacked_shardings

    abstract = abstract_unstacked_params(source.config, source.tensors)
    return quantized_shardings(abstract, unstacked_shardings(source.config, mesh))


def _eos_ids(generation: Mapping[str, Any], place: Path) -> frozenset[int]:
    ids = generation.get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(type(id) is int and 0 <= id < 2**31 for id in ids):
        raise InputError(f"{place}: eos_token_id must be an id or a list of ids, not {ids}")
    return frozenset(ids)
