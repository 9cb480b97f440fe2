"""What a compiled program of a machine that is not here tells: memory, work, traffic, time."""
