"""What a DeBERTa-v2 classifier is, in numbers, and how `config.json` says it.

A key that is unknown, or known and of a value that is not implemented, is refused by name.
"""

from dataclasses import dataclass
from typing import Any

from llama_jax.checkpoints.typed_fields import TypedFields, make_from_file
from llama_jax.errors import InputError

# Keys that name the numbers of a DebertaConfig.
_READ = frozenset(
    "vocab_size num_hidden_layers hidden_size num_attention_heads intermediate_size "
    "max_position_embeddings layer_norm_eps type_vocab_size position_biased_input "
    "max_relative_positions position_buckets pos_att_type share_att_key norm_rel_ebd id2label "
    "num_labels model_type architectures".split()
)
# Keys that would change the computation, with the values that leave it as it is.
_FIXED = {
    "hidden_act": ("gelu",),
    "pooler_hidden_act": ("gelu",),
    "relative_attention": (True,),
    "conv_kernel_size": (0,),
    "problem_type": ("single_label_classification",),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}
# Keys that only describe, or that only training and other programs read.
_HARMLESS = frozenset(
    "torch_dtype dtype transformers_version initializer_range bos_token_id eos_token_id "
    "pad_token_id sep_token_id cls_token_id label2id name_or_path tokenizer_class finetuning_task "
    "task_specific_params prefix output_attentions output_hidden_states output_past return_dict "
    "torchscript use_bfloat16 chunk_size_feed_forward gradient_checkpointing hidden_dropout_prob "
    "attention_probs_dropout_prob pooler_dropout cls_dropout legacy tie_word_embeddings use_cache "
    "conv_act conv_groups".split()
)


@dataclass(frozen=True)
class DebertaConfig:
    """A DeBERTa-v2 encoder with a classifier on its first token.

    Attributes:
      vocab_size: rows of the embedding (V).
      num_layers: blocks (L).
      model_dim: width of the residual stream (D).
      num_heads: heads of attention (N); divides `model_dim`.
      feed_forward_dim: hidden width of the feed-forward (F).
      context_length: the most tokens of a text.
      norm_eps: epsilon of every layer norm.
      num_types: rows of an embedding of token types, of which all texts here have the first; 0 for
        no such embedding.
      has_absolute_positions: whether the embedding of a token's place is added to its own.
      max_distance: between two tokens, beyond which all are alike.
      num_buckets: near distances have a bucket each, far ones share them by their logarithm; there
        are as many again for the other direction. 0: each distance has its own.
      content_to_position, position_to_content: whether attention compares a token with a distance,
        and a distance with a token.
      shares_projections: whether distances become keys and queries as tokens do.
      norms_distances: whether the vectors of distances are normalised.
      labels: names of the classes (C).
    """

    vocab_size: int
    num_layers: int
    model_dim: int
    num_heads: int
    feed_forward_dim: int
    context_length: int
    norm_eps: float
    num_types: int
    has_absolute_positions: bool
    max_distance: int
    num_buckets: int
    content_to_position: bool
    position_to_content: bool
    shares_projections: bool
    norms_distances: bool
    labels: tuple[str, ...]

    def __post_init__(self):
        for name in ("vocab_size", "num_layers", "model_dim", "num_heads", "feed_forward_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"model config: {name} must be positive")
        if self.model_dim % self.num_heads:
            raise InputError(
                f"model config: model_dim {self.model_dim} is not a multiple of num_heads "
                f"{self.num_heads}"
            )
        if self.context_length < 2 or self.max_distance < 2 or self.num_types < 0:
            raise InputError("model config: a length or a number of types is out of range")
        if not self.norm_eps > 0:
            raise InputError(f"model config: norm_eps must be positive, not {self.norm_eps}")
        if self.num_buckets and not 4 <= self.num_buckets <= 2 * (self.max_distance - 2):
            raise InputError(
                f"model config: num_buckets must be from 4 to twice the greatest distance "
                f"{self.max_distance}, not {self.num_buckets}"
            )
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise InputError("model config: there must be two or more labels, all different")

    @property
    def head_dim(self) -> int:
        """Width of one head (H)."""
        return self.model_dim // self.num_heads

    @property
    def span(self) -> int:
        """Distances to one side that have vectors of their own; there are twice as many (P)."""
        return self.num_buckets or self.max_distance


def config_from_huggingface(fields: dict[str, Any], *, file) -> DebertaConfig:
    """The `DebertaConfig` of a parsed `config.json`; absent keys get transformers' defaults.

    Raises `InputError` that names `file` and the key.
    """
    _refuse_other_models(fields, file)
    typed = TypedFields(fields, file)
    model_dim = typed.integer("hidden_size")
    _refuse_keys(fields, model_dim, file)
    context_length = typed.integer("max_position_embeddings", 512)
    max_distance = typed.integer("max_relative_positions", -1)
    kinds = _names(fields, "pos_att_type", {"c2p", "p2c"}, file)
    return make_from_file(
        DebertaConfig,
        file,
        vocab_size=typed.integer("vocab_size"),
        num_layers=typed.integer("num_hidden_layers"),
        model_dim=model_dim,
        num_heads=typed.integer("num_attention_heads"),
        feed_forward_dim=typed.integer("intermediate_size"),
        context_length=context_length,
        norm_eps=typed.number("layer_norm_eps", 1e-7),
        num_types=typed.integer("type_vocab_size", 0),
        has_absolute_positions=typed.boolean("position_biased_input", True),
        max_distance=max_distance if max_distance >= 1 else context_length,
        num_buckets=max(typed.integer("position_buckets", -1), 0),
        content_to_position="c2p" in kinds,
        position_to_content="p2c" in kinds,
        shares_projections=typed.boolean("share_att_key", False),
        norms_distances="layer_norm"
        in _names(fields, "norm_rel_ebd", {"layer_norm", "none"}, file),
        labels=_labels(fields, file),
    )


def _refuse_other_models(fields: dict[str, Any], file) -> None:
    if fields.get("model_type") != "deberta-v2":
        raise InputError(
            f"{file}: model_type {fields.get('model_type')!r} is not supported here; only "
            "'deberta-v2' is"
        )
    classifier = ["DebertaV2ForSequenceClassification"]
    if fields.get("architectures") not in (None, classifier):
        raise InputError(
            f"{file}: architectures {fields['architectures']!r} is not supported; only "
            f"{classifier} is"
        )
    if "relative_attention" not in fields:
        raise InputError(
            f"{file}: relative_attention is absent, which means false; only true is supported"
        )


def _refuse_keys(fields: dict[str, Any], model_dim: int, file) -> None:
    fixed = {**_FIXED, "embedding_size": (model_dim,), "pooler_hidden_size": (model_dim,)}
    for key, value in fields.items():
        if value is None or key.startswith("_") or key in _READ or key in _HARMLESS:
            continue
        if key not in fixed:
            raise InputError(
                f"{file}: {key!r} is not supported (it may change the model); remove it if it "
                "does not matter"
            )
        if value not in fixed[key]:
            raise InputError(
                f"{file}: {key} = {str(value)[:80]} is not supported; only {fixed[key][0]!r} is"
            )


def _names(fields: dict[str, Any], key: str, known: set[str], file) -> set[str]:
    """Names between `|`, or in a list."""
    value = fields.get(key) or []
    names = value.lower().split("|") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: {key} must be names, not {str(value)[:80]}")
    found = {name.strip() for name in names}
    if unknown := sorted(found - known):
        raise InputError(
            f"{file}: {key} has {unknown[0][:80]!r}; only {', '.join(sorted(known))} are supported"
        )
    return found


def _labels(fields: dict[str, Any], file) -> tuple[str, ...]:
    """In the order of their numbers; transformers calls them LABEL_0 and so on where nobody has
    named them."""
    names = fields.get("id2label")
    if names is None:
        count = TypedFields(fields, file).integer("num_labels", 2)
        names = {str(number): f"LABEL_{number}" for number in range(max(count, 0))}
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
        raise InputError(f"{file}: id2label must name the classes 0, 1, ... without a gap")
    labels = tuple(names[str(number)] for number in range(len(names)))
    if not all(isinstance(label, str) for label in labels):
        raise InputError(f"{file}: id2label must hold texts")
    return labels
