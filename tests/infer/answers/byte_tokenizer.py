"""A vocabulary of single bytes, a few longer tokens and special tokens."""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer

LONGER = ["ab", "abc", "ĠEN", "END", "Ċ##"]
SPECIAL = ["<bos>", "<eot>", "<eom>", "<|python_tag|>"]


def byte_tokenizer(special: Sequence[str] = SPECIAL) -> HuggingFaceTokenizer:
    """Ids in the order: 256 bytes, `LONGER`, `special`, of which the first is BOS."""
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *LONGER]
    tokenizer = Tokenizer(models.BPE({text: token for token, text in enumerate(texts)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"bos_token": special[0]}).encode(),
    }
    return HuggingFaceTokenizer(files, place="here")
