"""The OpenAI-compatible server. HTTP and the engine meet in `engine_thread.py` only."""
