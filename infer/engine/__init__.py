"""Continuous batching over a paged KV cache. It knows token ids, not text."""
