"""Counts of words to a SentencePiece BPE model that loses nothing of any text.

The vocabulary is `<unk>`, which no text comes to, 256 bytes for characters without a token, the
trained pieces, and the special tokens at the end. Digits stand alone; nothing is normalised.

SentencePiece writes a space as U+2581, and would give a U+2581 of a text back as a space. It must
do so in training. Afterwards the pieces can have spaces again and `escape_whitespaces` be off, and
a U+2581 is then a character like all others: so it is done here.

Reference: https://github.com/google/sentencepiece, `src/sentencepiece_model.proto`.
"""

import io
import re
from collections.abc import Mapping, Sequence

from llama_jax.errors import InputError
from llama_jax.tokenizers.training.special_tokens import UNKNOWN

_ESCAPED_SPACE = "\u2581"
BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"


def train_sentencepiece(
    word_counts: Mapping[str, int],
    *,
    vocab_size: int,
    special_tokens: Sequence[str],
    character_coverage: float,
) -> bytes:
    """Content of `tokenizer.model`: the same for the same counts.

    Args:
      word_counts: word, as `words.py` has them -> how often it is in the text.
      vocab_size: all of the vocabulary, special tokens included.
      special_tokens: the last ids, in this order.
      character_coverage: the share of the text's characters whose kinds get a token each, at most
        1; the rarest kinds are left to bytes.

    Raises `InputError` that names the sizes possible if `vocab_size` is not.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    content = io.BytesIO()
    num_special = len(special_tokens)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{count}" for word, count in sorted(word_counts.items())),
            input_format="tsv",
            model_writer=content,
            model_type="bpe",
            vocab_size=vocab_size - num_special,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(_size_complaint(str(error), vocab_size, num_special)) from error
    model = protobuf.ModelProto.FromString(content.getvalue())
    for piece in model.pieces:
        piece.piece = piece.piece.replace(_ESCAPED_SPACE, " ")
    taken = {piece.piece for piece in model.pieces} & set(special_tokens)
    if taken:
        raise InputError(
            f"--special-tokens {min(taken)}: the text has it as a token of its own; choose a name "
            "that is in no text, such as <|name|>"
        )
    for token in special_tokens:
        model.pieces.add(piece=token, score=0, type=protobuf.ModelProto.SentencePiece.CONTROL)
    model.normalizer_spec.escape_whitespaces = False
    model.trainer_spec.vocab_size = vocab_size
    model.trainer_spec.unk_piece = UNKNOWN
    for role, token in (("bos", BOS), ("eos", EOS), ("pad", PAD)):
        setattr(model.trainer_spec, f"{role}_piece", token)
        token_id = vocab_size - num_special + list(special_tokens).index(token)
        setattr(model.trainer_spec, f"{role}_id", token_id)
    return model.SerializeToString(deterministic=True)


def _size_complaint(message: str, vocab_size: int, num_special: int) -> str:
    """The trainer's complaint with the sizes that it would take."""
    if most := re.search(r"<= (\d+)\.", message):
        return (
            f"--vocab-size {vocab_size}: the corpus is too small for so many tokens; give at most "
            f"{int(most[1]) + num_special}, or more text"
        )
    if least := re.search(r"smaller than required_chars\. -?\d+ vs (\d+)", message):
        return (
            f"--vocab-size {vocab_size}: too small for the characters of the text, the bytes and "
            f"{num_special} special tokens; give at least {int(least[1]) + num_special}, or lower "
            "--character-coverage or --num-special-tokens"
        )
    return f"--vocab-size {vocab_size}: SentencePiece cannot train this ({message})"
