"""What `llama-jax train` and `llama-jax post-train` know by name."""

# Name -> "module:function" of a function without arguments that returns a RunConfig.
RUNS: dict[str, str] = (
    {
        name: f"configs.{name}:{name}"
        for name in (
            "tiny_cpu",
            "pretrain_8b",
            "pretrain_70b",
            "pretrain_405b",
            "pretrain_405b_65m",
            "long_context_405b",
            "anneal_405b",
            "llama_405b",
            "sft_8b",
            "reward_8b",
            "dpo_8b",
            "distill_8b",
        )
    }
    | {
        f"round_{stage}_8b": f"configs.post_training_8b_runs:round_{stage}_8b"
        for stage in ("reward", "sft", "dpo")
    }
    | {
        name: f"configs.smollm2_sums:{name}"
        for name in ("smollm2_sums_sft", "smollm2_sums_selected")
    }
)

# Name -> "module:function" of a function without arguments that returns a PostTraining.
POST_TRAINING: dict[str, str] = {
    "post_training_8b": "configs.post_training_8b:post_training_8b",
    "smollm2_sums": "configs.smollm2_sums:smollm2_sums",
}
