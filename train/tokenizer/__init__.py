"""From files of text to a tokenizer, and how well tokenizers do on files of text."""
