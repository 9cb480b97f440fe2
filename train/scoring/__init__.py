"""`llama-jax score`: what a reward model gives answers, and how often it ranks as people do."""
