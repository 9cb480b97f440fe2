"""Attention and matrix products: a plain-jnp reference of each, the oracle of every faster one."""
