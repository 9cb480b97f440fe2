"""Hugging Face's tokenizer files from Meta's rank file, for checkpoints that leave in that format.

tiktoken has no merges: it joins any two neighbours whose bytes together are a token, the lowest
rank first. The `tokenizers` library wants the pairs listed in the order in which they merge. So
every split of every token into two tokens becomes a merge, and the merges are ordered by the rank
of what they make, then by the ranks of the left and the right part: 280,147 for Llama 3, in the
order of the file that Hugging Face publishes. tiktoken takes a word that is itself a token whole,
whether merges lead to it or not; `ignore_merges` does the same.

Only runs of more than 25,000 spaces or non-spaces, which Meta's code cuts and the library does not,
give other ids. The special tokens have Meta's names (see llama31.py). As in the published file, the
library adds BOS before a text unless told `add_special_tokens=False`.

Reference: https://github.com/huggingface/transformers, `TikTokenConverter` in
convert_slow_tokenizer.py, to which the merges are tested equal.
"""

from collections.abc import Mapping
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers.byte_alphabet import spell
from llama_jax.tokenizers.byte_level_json import (
    added_token,
    byte_level_json,
    split_pre_tokenizers,
)
from llama_jax.tokenizers.llama31 import NUM_RANKS, SPECIAL_TOKENS, SPLIT_PATTERN
from llama_jax.tokenizers.rank_file import read_rank_file
from llama_jax.tokenizers.tokenizer_config import tokenizer_config_files

BOS = "<|begin_of_text|>"
PAD = "<|finetune_right_pad_id|>"


def llama31_to_huggingface(
    tokenizer_model: str | Path,
    *,
    model_max_length: int,
    eos_token: str,
    chat_template: str | None,
) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, name -> content.

    Args:
      tokenizer_model: Meta's rank file.
      model_max_length: the model's context in tokens (131072 for Llama 3.1).
      eos_token: `<|eot_id|>` for an Instruct model, `<|end_of_text|>` for a base model.
      chat_template: Jinja source to go into `tokenizer_config.json`, or None.

    Raises `InputError` on a rank file that is not Llama 3's.
    """
    tokenizer_model = Path(tokenizer_model)
    if eos_token not in SPECIAL_TOKENS:
        raise InputError(f"eos_token: {eos_token!r} is not a special token of Llama 3.1")
    ranks = read_rank_file(tokenizer_model)
    if len(ranks) != NUM_RANKS:
        raise InputError(
            f"{tokenizer_model}: holds {len(ranks)} ranks, Llama 3's holds {NUM_RANKS}; give Llama "
            "3's tokenizer.model"
        )
    tokenizer_json = byte_level_json(
        vocabulary={spell(token): rank for token, rank in ranks.items()},
        merges=[(spell(left), spell(right)) for left, right in merges_of_ranks(ranks)],
        pre_tokenizers=split_pre_tokenizers(SPLIT_PATTERN),
        ignore_merges=True,
        added_tokens=[
            added_token(text, token_id, special=True) for text, token_id in SPECIAL_TOKENS.items()
        ],
        bos=(BOS, SPECIAL_TOKENS[BOS]),
    )
    roles = {"bos_token": BOS, "eos_token": eos_token, "pad_token": PAD}
    return {
        "tokenizer.json": tokenizer_json,
        **tokenizer_config_files(
            roles,
            tokenizer_class="PreTrainedTokenizerFast",
            add_bos=True,
            model_max_length=model_max_length,
            chat_template=chat_template,
        ),
    }


def merges_of_ranks(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every split of a token into two tokens, in the order in which the pairs merge.

    With ranks a 0, b 1, c 2, ab 3, bc 4, abc 5: (a, b), (b, c), then (a, bc) before (ab, c).
    """
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = ((token[:middle], token[middle:]) for middle in range(1, len(token)))
        merges += sorted(
            (split for split in splits if split[0] in ranks and split[1] in ranks),
            key=lambda split: (ranks[split[0]], ranks[split[1]]),
        )
    return merges
