"""A small run to plan: three layers, heads of 128."""

from llama_jax.config import ModelConfig
from sharding.mesh import MeshShape
from train.config import BatchStep, CheckpointConfig, RunConfig, Source, StageConfig
from train.schedules import Linear

MODEL = ModelConfig(
    vocab_size=1024,
    num_layers=3,
    model_dim=256,
    num_heads=4,
    num_kv_heads=2,
    head_dim=128,
    feed_forward_dim=512,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    context_length=512,
    tied_embeddings=False,
)


def small_run(**fields) -> RunConfig:
    stage = StageConfig(
        name="pretrain",
        num_tokens=10**6,
        row_length=512,
        mixture=(Source("text", "data", 1.0),),
        batch=(BatchStep(0, 8),),
        learning_rate=Linear(1e-3, 0.0),
    )
    return RunConfig(
        output="run",
        model=MODEL,
        tokenizer="tokenizer",
        stages=(stage,),
        checkpoint=CheckpointConfig(every_steps=10),
        mesh=MeshShape(fsdp=4),
        vocab_chunk=256,
        **fields,
    )
