"""A SentencePiece `.model`, as Llama 1 and 2 have, run by the `sentencepiece` library.

The library never finds control tokens (`<s>`, `</s>`) in a text, which is the default wanted by
`interface.py`; where they are allowed, this module cuts the text at them. Each part between them is
then encoded by itself, with the space that SentencePiece puts before a text, as Meta's Llama 2 code
encodes each message by itself.

Reference: https://github.com/google/sentencepiece/blob/master/doc/special_symbols.md
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers.boundary import check_ids, well_formed


class SentencePieceTokenizer:
    """Tokenizer of a SentencePiece `.model` (`Tokenizer` of interface.py).

    Attributes:
      vocab_size: number of pieces.
      bos_id: None if the model has no such piece.
      eos_ids: the id of `</s>`; empty if the model has none.
      special_tokens: the control pieces' texts -> ids.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads `path`; `InputError` if it is not a SentencePiece model."""
        import sentencepiece

        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; give the path of a SentencePiece model")
        model = sentencepiece.SentencePieceProcessor()
        try:
            loaded = model.load_from_serialized_proto(path.read_bytes())
        except RuntimeError:
            loaded = False
        # The library takes an empty file for an empty model.
        if not loaded or not model.get_piece_size():
            raise InputError(
                f"{path}: not a SentencePiece model; download it again or give the tokenizer.model "
                "that came with the checkpoint"
            )
        self._model = model
        self.vocab_size = model.get_piece_size()
        self.bos_id = model.bos_id() if model.bos_id() >= 0 else None
        self.eos_ids = frozenset({model.eos_id()} - {-1})
        self.special_tokens = {
            model.id_to_piece(token_id): token_id
            for token_id in range(self.vocab_size)
            if model.is_control(token_id)
        }
        self._special_texts = {token_id: text for text, token_id in self.special_tokens.items()}
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`, without BOS and EOS. Lone surrogates become U+FFFD."""
        text = well_formed(text)
        if not allow_special or not self.special_tokens:
            return self._model.encode(text)
        ids: list[int] = []
        for part in self._special_pattern.split(text):
            if part in self.special_tokens:
                ids.append(self.special_tokens[part])
            else:
                ids.extend(self._model.encode(part))
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`, without the space that encoding put before it; `InputError` on an id
        outside the vocabulary."""
        check_ids(ids, vocab_size=self.vocab_size)
        if skip_special:
            return self._model.decode([i for i in ids if i not in self._special_texts])
        text = ""
        for special, run in itertools.groupby(ids, self._special_texts.__contains__):
            if special:
                text += "".join(self._special_texts[token_id] for token_id in run)
            else:
                text += self._model.decode(list(run))
        return text

    def definition(self) -> dict[str, object]:
        """Pieces, scores, kinds, and how text is normalised; not the trainer's notes, which name
        the files that it read."""
        from sentencepiece import sentencepiece_model_pb2 as protobuf

        model = protobuf.ModelProto.FromString(self._model.serialized_model_proto())
        normalizer = model.normalizer_spec
        return {
            "pieces": [[piece.piece, piece.score, piece.type] for piece in model.pieces],
            "model_type": model.trainer_spec.model_type,
            "byte_fallback": model.trainer_spec.byte_fallback,
            "treat_whitespace_as_suffix": model.trainer_spec.treat_whitespace_as_suffix,
            "characters": normalizer.precompiled_charsmap.hex(),
            "normalizer": [
                normalizer.add_dummy_prefix,
                normalizer.remove_extra_whitespaces,
                normalizer.escape_whitespaces,
            ],
        }
