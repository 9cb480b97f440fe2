"""Hugging Face `config.json` <-> `ModelConfig`.

RoPE is in `huggingface_rope.py`. A key that we do not know is refused by name: it may change the
computation, and ignoring it would give a model that is quietly another one.
"""

from typing import Any

import numpy as np

from llama_jax.checkpoints.huggingface_rope import read_rope, write_rope
from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError

_POLICY, _REWARD_MODEL = "LlamaForCausalLM", "LlamaForSequenceClassification"
# Keys that name the numbers of a ModelConfig.
_READ = frozenset(
    "vocab_size num_hidden_layers hidden_size num_attention_heads num_key_value_heads head_dim "
    "intermediate_size rms_norm_eps rope_theta rope_scaling rope_parameters "
    "max_position_embeddings tie_word_embeddings model_type architectures".split()
)
# Keys that would change the computation, with the one value that leaves it as it is.
_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0,
    "partial_rotary_factor": 1,
    "rope_interleaved": False,
    "use_sliding_window": False,
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
# Keys that only describe, or that only serving code and other programs read.
_HARMLESS = frozenset(
    "torch_dtype dtype transformers_version use_cache pretraining_tp initializer_range "
    "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id decoder_start_token_id "
    "id2label label2id num_labels problem_type name_or_path tokenizer_class finetuning_task "
    "task_specific_params prefix output_attentions output_hidden_states return_dict torchscript "
    "use_bfloat16 chunk_size_feed_forward gradient_checkpointing is_llama_config "
    "transformers.js_config max_sequence_length unsloth_version unsloth_fixed "
    "max_length min_length max_new_tokens do_sample temperature top_k top_p typical_p "
    "repetition_penalty length_penalty num_beams num_return_sequences early_stopping".split()
)


def config_from_huggingface(fields: dict[str, Any], *, file) -> ModelConfig:
    """The `ModelConfig` of a parsed `config.json`; absent keys get transformers' defaults.

    `file` is named in errors.

    Raises `InputError` for another architecture, an unknown key, and a value that is not
    implemented.
    """
    _refuse_other_models(fields, file)
    typed = TypedFields(fields, file)
    heads = typed.integer("num_attention_heads")
    model_dim = typed.integer("hidden_size")
    if heads <= 0 or ("head_dim" not in typed.fields and model_dim % heads):
        raise InputError(
            f"{file}: hidden_size {model_dim} does not divide into num_attention_heads {heads}"
        )
    theta, scaling, context_length = read_rope(typed)
    sizes = {
        "vocab_size": typed.integer("vocab_size"),
        "num_layers": typed.integer("num_hidden_layers"),
        "model_dim": model_dim,
        "num_heads": heads,
        "num_kv_heads": typed.integer("num_key_value_heads", heads),
        "head_dim": typed.integer("head_dim", model_dim // heads),
        "feed_forward_dim": typed.integer("intermediate_size"),
        "norm_eps": typed.number("rms_norm_eps", 1e-6),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "context_length": context_length,
        "tied_embeddings": typed.boolean("tie_word_embeddings", False),
        "reward_head": _is_reward_model(fields, file),
    }
    return make_from_file(ModelConfig, file, **sizes)


def config_to_huggingface(config: ModelConfig, dtype: np.dtype) -> dict[str, Any]:
    """Fields of a `config.json` that transformers 4 and 5 read as the same model.

    Raises `InputError` for what the format cannot say.
    """
    if config.model_dim % config.num_heads:
        raise InputError(
            f"model config: transformers refuses model_dim {config.model_dim} that is not a "
            f"multiple of num_heads {config.num_heads}; convert to another format"
        )
    return {
        **_architecture(config),
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.model_dim,
        "intermediate_size": config.feed_forward_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": config.norm_eps,
        **write_rope(config),
        "tie_word_embeddings": config.tied_embeddings,
        "torch_dtype": np.dtype(dtype).name,
        "dtype": np.dtype(dtype).name,
    }


def _is_reward_model(fields: dict[str, Any], file) -> bool:
    """Raises `InputError` for a classifier with another number of labels than one."""
    if fields.get("architectures") != [_REWARD_MODEL]:
        return False
    labels = fields.get("id2label")
    num_labels = len(labels) if isinstance(labels, dict) else fields.get("num_labels")
    if num_labels != 1:
        raise InputError(
            f"{file}: a {_REWARD_MODEL} that is a reward model has one label, its score; this one "
            "has others (id2label)"
        )
    return True


def _architecture(config: ModelConfig) -> dict[str, Any]:
    if not config.reward_head:
        return {"architectures": [_POLICY]}
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    return {"architectures": [_REWARD_MODEL], **labels}


def _refuse_other_models(fields: dict[str, Any], file) -> None:
    if fields.get("model_type") != "llama":
        raise InputError(
            f"{file}: model_type {fields.get('model_type')!r} is not supported; only 'llama' is"
        )
    if fields.get("architectures") not in (None, [_POLICY], [_REWARD_MODEL]):
        raise InputError(
            f"{file}: architectures {fields['architectures']!r} is not supported; only "
            f"[{_POLICY!r}] is, and [{_REWARD_MODEL!r}] with one label"
        )
    for key, value in fields.items():
        if value is None or key.startswith("_") or key in _READ or key in _HARMLESS:
            continue
        if key not in _FIXED:
            raise InputError(
                f"{file}: {key!r} is not supported (it may change the model); remove it if it "
                "does not matter"
            )
        if value != _FIXED[key]:
            raise InputError(
                f"{file}: {key} = {str(value)[:80]} is not supported; only {_FIXED[key]!r} is"
            )
