"""From a rendered dialog to tokens and loss mask.

The text is encoded in one go, as Hugging Face does, whenever the special tokens that the tokenizer
finds in it are exactly the template's. When a message has the text of one in it, each stretch
between the template's special tokens is encoded on its own, as plain text; the ids are the same for
byte-level tokenizers, while a SentencePiece one may write a leading space at each stretch.
"""

from collections.abc import Sequence

from llama_jax.chat.interface import FormattedDialog
from llama_jax.chat.template_markers import Rendering
from llama_jax.tokenizers.interface import Tokenizer


def tokens_of(rendering: Rendering, tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of each piece of `rendering`."""
    plain_texts = [
        rendering.text[piece.start : piece.end] for piece in rendering.pieces if piece.token is None
    ]
    if not any(special in text for text in plain_texts for special in tokenizer.special_tokens):
        special_ids = set(tokenizer.special_tokens.values())
        ids = tokenizer.encode(rendering.text, allow_special=True)
        expected = [piece.token for piece in rendering.pieces if piece.token is not None]
        # Unequal where a message and a special token of the template together look like another.
        if [token for token in ids if token in special_ids] == expected:
            return _split_at_special_tokens(ids, rendering)
    return [
        tokenizer.encode(rendering.text[piece.start : piece.end])
        if piece.token is None
        else [piece.token]
        for piece in rendering.pieces
    ]


def _split_at_special_tokens(ids: list[int], rendering: Rendering) -> list[list[int]]:
    """`ids` cut into the pieces of `rendering`, whose special tokens are those of `ids`."""
    pieces = []
    position = 0
    following = [piece.token for piece in rendering.pieces[1:]] + [None]
    for piece, next_token in zip(rendering.pieces, following, strict=True):
        if piece.token is not None:
            end = position + 1
        else:
            # A text piece is followed by a special token or by the end.
            end = len(ids) if next_token is None else ids.index(next_token, position)
        pieces.append(ids[position:end])
        position = end
    return pieces


def with_loss_mask(
    rendering: Rendering, spans: Sequence[tuple[int, int]], tokenizer: Tokenizer
) -> FormattedDialog:
    """Tokens of `rendering`, with mask 1 on those that hold a character of `spans`.

    Args:
      spans: (start, end) in characters of the text, in order, apart from one another.
    """
    tokens, loss_mask = [], []
    pieces = zip(rendering.pieces, tokens_of(rendering, tokenizer), strict=True)
    for piece, ids in pieces:
        tokens += ids
        mask = [0] * len(ids)
        for start, end in spans:
            if end <= piece.start or piece.end <= start:
                continue
            text = rendering.text[piece.start : piece.end]
            first, _ = _tokens_before(start - piece.start, text, ids, tokenizer)
            last, exact = _tokens_before(end - piece.start, text, ids, tokenizer)
            # A token with characters on both sides of an edge belongs to the span, as in
            # transformers' assistant masks.
            stop = last if exact else last + 1
            mask[first:stop] = [1] * (min(stop, len(ids)) - first)
        loss_mask += mask
    return FormattedDialog(tuple(tokens), tuple(loss_mask))


def _tokens_before(
    character: int, text: str, ids: list[int], tokenizer: Tokenizer
) -> tuple[int, bool]:
    """How many of `ids` lie wholly before `character` of `text`, and whether the next one begins
    exactly there."""
    if character <= 0:
        return 0, True
    if character >= len(text):
        return len(ids), True
    prefix = tokenizer.encode(text[:character])
    count = 0
    while count < min(len(prefix), len(ids)) and prefix[count] == ids[count]:
        count += 1
    if count == len(prefix):
        return count, True
    # The edge is inside a token, or changed how the text before it is cut up. Lengths are compared
    # as decoded, because some tokenizers do not give a text back to the letter.
    target = len(tokenizer.decode(prefix))
    while count < len(ids) and len(tokenizer.decode(ids[: count + 1])) <= target:
        count += 1
    return count, len(tokenizer.decode(ids[:count])) == target
