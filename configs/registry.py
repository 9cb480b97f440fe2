"""The runs that `llama-jax train` knows by name."""

# Name -> "module:function" of a function without arguments that returns a RunConfig.
RUNS: dict[str, str] = {
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
