"""A new tokenizer from text: SentencePiece BPE with Llama 3.1's special tokens at its end."""
