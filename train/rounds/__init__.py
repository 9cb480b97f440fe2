"""Rounds of post-training: command after command, each in a process of its own, from a config."""
