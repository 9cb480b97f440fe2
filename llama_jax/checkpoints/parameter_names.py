"""The one table of foreign names: our parameter -> Hugging Face, Meta and GGUF.

Our layout is PyTorch's `[out, in]` with the head dimensions split, so every transform but one is a
reshape of the same bytes: a checkpoint is read through a memory map and converted at the speed of
the disk. (`[out, in]` is also what Hopper's FP8 matrix units want: both operands contract over
their last, contiguous dimension.) The exception is RoPE's pairing in query and key, see
`rope_layout.py`: Hugging Face and we pair dimension i with i + H/2, Meta and GGUF pair 2i with
2i + 1.

Letters: D model, N query heads, K key and value heads, H head dim, F feed-forward, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from llama_jax.config import ModelConfig


@dataclass(frozen=True)
class ParameterName:
    """One row of the table. `{}` in a name is the layer.

    Attributes:
      ours: path in `params`, with the layer after `blocks` (in memory, layers are stacked).
      dims: our dimensions, outermost first.
      foreign_dims: the same, grouped as the two (or one) dimensions that foreign files have.
      huggingface, meta, gguf: the foreign names; None where the format has no such tensor.
      rotated: whether RoPE acts on it, so that Meta's and GGUF's rows are in another order.
      meta_shard_dim: the foreign dimension that Meta's model-parallel shards split; None if each
        shard holds the whole tensor.
    """

    ours: str
    dims: str
    foreign_dims: str
    huggingface: str
    meta: str | None
    gguf: str | None
    rotated: bool = False
    meta_shard_dim: int | None = None

    def is_in(self, config: ModelConfig) -> bool:
        """Whether a model of `config` has it."""
        only = {"head": config.has_head, "reward_head": config.reward_head}
        return only.get(self.ours, True)

    @property
    def contracted(self) -> int:
        """How many of our last dimensions a product sums over: foreign files have them as one."""
        return len(self.foreign_dims.split()[-1])


PARAMETER_NAMES = (
    ParameterName(
        "embedding",
        "V D",
        "V D",
        "model.embed_tokens.weight",
        "tok_embeddings.weight",
        "token_embd.weight",
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.attention_norm.scale",
        "D",
        "D",
        "model.layers.{}.input_layernorm.weight",
        "layers.{}.attention_norm.weight",
        "blk.{}.attn_norm.weight",
    ),
    ParameterName(
        "blocks.{}.attention.query",
        "N H D",
        "NH D",
        "model.layers.{}.self_attn.q_proj.weight",
        "layers.{}.attention.wq.weight",
        "blk.{}.attn_q.weight",
        rotated=True,
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.attention.key",
        "K H D",
        "KH D",
        "model.layers.{}.self_attn.k_proj.weight",
        "layers.{}.attention.wk.weight",
        "blk.{}.attn_k.weight",
        rotated=True,
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.attention.value",
        "K H D",
        "KH D",
        "model.layers.{}.self_attn.v_proj.weight",
        "layers.{}.attention.wv.weight",
        "blk.{}.attn_v.weight",
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.attention.output",
        "D N H",
        "D NH",
        "model.layers.{}.self_attn.o_proj.weight",
        "layers.{}.attention.wo.weight",
        "blk.{}.attn_output.weight",
        meta_shard_dim=1,
    ),
    ParameterName(
        "blocks.{}.feed_forward_norm.scale",
        "D",
        "D",
        "model.layers.{}.post_attention_layernorm.weight",
        "layers.{}.ffn_norm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    ParameterName(
        "blocks.{}.feed_forward.gate",
        "F D",
        "F D",
        "model.layers.{}.mlp.gate_proj.weight",
        "layers.{}.feed_forward.w1.weight",
        "blk.{}.ffn_gate.weight",
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.feed_forward.up",
        "F D",
        "F D",
        "model.layers.{}.mlp.up_proj.weight",
        "layers.{}.feed_forward.w3.weight",
        "blk.{}.ffn_up.weight",
        meta_shard_dim=0,
    ),
    ParameterName(
        "blocks.{}.feed_forward.down",
        "D F",
        "D F",
        "model.layers.{}.mlp.down_proj.weight",
        "layers.{}.feed_forward.w2.weight",
        "blk.{}.ffn_down.weight",
        meta_shard_dim=1,
    ),
    ParameterName(
        "final_norm.scale",
        "D",
        "D",
        "model.norm.weight",
        "norm.weight",
        "output_norm.weight",
    ),
    ParameterName(
        "head",
        "V D",
        "V D",
        "lm_head.weight",
        "output.weight",
        "output.weight",
        meta_shard_dim=0,
    ),
    # transformers' LlamaForSequenceClassification with one label.
    ParameterName("reward_head", "D", "1 D", "score.weight", None, None),
)


@dataclass(frozen=True)
class LayerTensor:
    """One row of the table at one layer: final names and shapes.

    Attributes:
      name: our name, the layer filled in.
      row: the table row it comes from.
      layer: the layer, or None outside the blocks.
      shape: our shape.
      foreign_shape: the shape in Hugging Face, Meta (unsharded) and GGUF files.
    """

    name: str
    row: ParameterName
    layer: int | None
    shape: tuple[int, ...]
    foreign_shape: tuple[int, ...]

    def foreign_name(self, file_format: str) -> str:
        """Name in `huggingface`, `meta` or `gguf` files."""
        return getattr(self.row, file_format).format(self.layer)


def layer_tensors(config: ModelConfig) -> Iterator[LayerTensor]:
    """Every tensor a checkpoint of `config` has, in the order of the forward pass."""
    in_blocks = [row for row in PARAMETER_NAMES if row.ours.startswith("blocks.")]
    embedding, *after = (row for row in PARAMETER_NAMES if row not in in_blocks)
    yield _at_layer(embedding, None, config)
    for layer in range(config.num_layers):
        for row in in_blocks:
            yield _at_layer(row, layer, config)
    yield from (_at_layer(row, None, config) for row in after if row.is_in(config))


def _at_layer(row: ParameterName, layer: int | None, config: ModelConfig) -> LayerTensor:
    size = {
        "1": 1,
        "D": config.model_dim,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.feed_forward_dim,
        "V": config.vocab_size,
        "NH": config.num_heads * config.head_dim,
        "KH": config.num_kv_heads * config.head_dim,
    }
    return LayerTensor(
        name=row.ours.format(layer),
        row=row,
        layer=layer,
        shape=tuple(size[dim] for dim in row.dims.split()),
        foreign_shape=tuple(size[dim] for dim in row.foreign_dims.split()),
    )
