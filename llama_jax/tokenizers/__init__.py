"""Text to token ids and back: Llama 3.1's tiktoken file, `tokenizer.json`, SentencePiece, GGUF."""

from llama_jax.tokenizers.load import load_tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash

__all__ = ["load_tokenizer", "tokenizer_hash"]
