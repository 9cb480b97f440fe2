"""Hugging Face's `tokenizer.json` from a SentencePiece model trained here, with equal ids.

SentencePiece merges the two neighbours that make the piece with the best score, the leftmost of
several that make the same. The `tokenizers` library merges the pair that comes first in a list, the
leftmost of several occurrences of the same pair. So every split of every piece into two becomes a
merge, ordered by the score of what it makes. Where two overlapping pairs make the same piece, from
x|y|z with xy = yz, the library must be made to take the left one, (x, y), by listing it first. y is
then at the end of the piece and at its start: of two splits at mirrored places, the one whose right
part is also how the piece begins comes first.

Lines are cut apart before merging, which changes no ids, since no piece has a line end, and keeps
the library quick on long texts. (Cutting words apart as well is slower: it needs an expression.)

Reference: https://github.com/huggingface/transformers, `SentencePieceExtractor` in
convert_slow_tokenizer.py, which orders such splits by length.
"""

import json
from typing import Any

from llama_jax.tokenizers.byte_level_json import added_token, put_before_every_text
from llama_jax.tokenizers.tokenizer_config import tokenizer_config_files
from llama_jax.tokenizers.training.sentencepiece_training import BOS, EOS, PAD

_STOPS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


def sentencepiece_to_huggingface(
    model_file: bytes, *, chat_template: str | None
) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and
    `generation_config.json`, name -> content.

    Args:
      model_file: content of a `tokenizer.model` of `train_sentencepiece`.
      chat_template: Jinja source to go into `tokenizer_config.json`, or None.
    """
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    model = protobuf.ModelProto.FromString(model_file)
    assert not model.normalizer_spec.escape_whitespaces, "not a model of train_sentencepiece"
    kinds = protobuf.ModelProto.SentencePiece
    ids = {piece.piece: token_id for token_id, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == kinds.NORMAL}
    special = {
        piece.piece: ids[piece.piece] for piece in model.pieces if piece.type == kinds.CONTROL
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(text, token_id, special=True) for text, token_id in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": "\n"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": put_before_every_text(BOS, special[BOS]),
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,  # no text comes to it, and a role would make of a text `<unk>` one
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: i for text, i in ids.items() if text not in special},
            "merges": [list(merge) for merge in merges_of_scores(scores)],
        },
    }
    roles = {
        "bos_token": BOS,
        "eos_token": "<|eot_id|>" if chat_template else EOS,
        "pad_token": PAD,
    }
    generation: dict[str, Any] = {
        "bos_token_id": special[BOS],
        "eos_token_id": [special[token] for token in _STOPS],
        "pad_token_id": special[PAD],
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, indent=1).encode(),
        "generation_config.json": (json.dumps(generation, indent=2) + "\n").encode(),
        **tokenizer_config_files(
            roles,
            tokenizer_class="PreTrainedTokenizerFast",
            add_bos=True,
            model_max_length=None,
            chat_template=chat_template,
        ),
    }


def merges_of_scores(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, in the order in which the pairs merge.

    Args:
      scores: piece -> score; the higher, the earlier it is made.
    """
    merges = []
    for piece in sorted(scores, key=scores.__getitem__, reverse=True):
        splits = [
            (piece[:middle], piece[middle:])
            for middle in range(1, len(piece))
            if piece[:middle] in scores and piece[middle:] in scores
        ]
        merges += sorted(splits, key=lambda split, piece=piece: not piece.startswith(split[1]))
    return merges
