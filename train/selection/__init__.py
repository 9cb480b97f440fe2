"""`llama-jax select` and `llama-jax verify`: from many answers a question to rows worth training
on.

The rejection sampling of Llama 3 (arXiv 2407.21783, section 4.2.2): a model answers each prompt 10
to 30 times, a reward model or a verifier scores the answers, and the best becomes a row of SFT, a
pair of a good and a bad one a row of preferences. No model and no device is needed here.
"""
