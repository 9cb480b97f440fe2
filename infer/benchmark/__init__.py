"""`llama-jax bench infer`: throughput offline, latency served, each against named peers."""
