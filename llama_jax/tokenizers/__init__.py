"""Text to token ids and back: Llama 3.1's tiktoken file, `tokenizer.json`, SentencePiece, GGUF."""

from llama_jax.tokenizers.load import load_tokenizer

__all__ = ["load_tokenizer"]
