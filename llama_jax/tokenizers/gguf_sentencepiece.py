"""A SentencePiece model from the metadata of a GGUF file whose tokenizer is of the kind "llama".

llama.cpp's converter takes the pieces, scores and types out of the original `tokenizer.model` and
leaves out the settings around them. For this kind they are always the same, Llama 2's: byte pairs
by score, bytes for unknown characters, no normalisation, spaces kept as they are. So the model can
be put together again; the ids are tested equal to the original's.

Reference: https://github.com/google/sentencepiece, `src/sentencepiece_model.proto`, whose piece
types have the numbers that GGUF gives them.
"""

from collections.abc import Sequence

from llama_jax.errors import InputError


def sentencepiece_model(
    *,
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    bos: str | None,
    eos: str | None,
    space_before_text: bool,
    place: str,
) -> bytes:
    """Content of `tokenizer.model`.

    Args:
      pieces: the tokens by id, with ▁ for a space.
      scores: the higher, the earlier a piece is merged.
      types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
      bos, eos: the control pieces with this meaning, if any.
      space_before_text: encode a text as if a space stood before it.
      place: the GGUF's path, for error messages.

    Raises `InputError` if the sentencepiece library cannot use the model.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    model = protobuf.ModelProto()
    try:
        for piece, score, piece_type in zip(pieces, scores, types, strict=True):
            model.pieces.add(piece=piece, score=score, type=piece_type)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{place}: tokenizer.ggml has a token, score or token type of the wrong kind ({error})"
            "; download the file again"
        ) from error
    model.trainer_spec.model_type = protobuf.TrainerSpec.BPE
    model.trainer_spec.vocab_size = len(pieces)
    model.trainer_spec.byte_fallback = True
    for role, piece in (("bos", bos), ("eos", eos)):
        token_id = -1 if piece is None else pieces.index(piece)
        setattr(model.trainer_spec, f"{role}_id", token_id)
        if piece is not None:
            setattr(model.trainer_spec, f"{role}_piece", piece)
    if 2 in types:  # without it the library refuses the model, below
        model.trainer_spec.unk_id = types.index(2)
        model.trainer_spec.unk_piece = pieces[types.index(2)]
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = space_before_text
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    content = model.SerializeToString()
    try:
        sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise InputError(
            f"{place}: tokenizer.ggml makes no SentencePiece model "
            f"({' '.join(str(error).split())}); download the file again"
        ) from error
    return content
