"""GPT-2's alphabet: one printable character for each of the 256 bytes.

`tokenizer.json` and GGUF write byte-level tokens in it, so that a token that is half a character,
or a space, is still a readable string: the space is `Ġ`, the line feed `Ċ`. Bytes that are
printable Latin-1 stand for themselves; the other 68, in order, for the characters from U+0100 on.

Reference: https://github.com/openai/gpt-2, `src/encoder.py`.
"""

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_TO_CHARACTER: dict[int, str] = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(0x100 + index) for index, byte in enumerate(_OTHERS)},
}

_SPELLING = {byte: ord(character) for byte, character in BYTE_TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """`token` in the alphabet: `spell(b" the")` is `"Ġthe"`."""
    return token.decode("latin-1").translate(_SPELLING)
