"""Reading a .zst file to its end. The library's own reader takes a file that was cut off for a
shorter one; a corpus must not lose its end so."""

import io
from typing import BinaryIO

# A block of zstd can hold a thousand times its size; what one chunk becomes is held in memory.
_CHUNK_BYTES = 64 << 10


class ZstdFile(io.RawIOBase):
    """The content of one or more zstd frames, forwards. Raises `EOFError` if it is cut off or no
    zstd, when that place is reached."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = None
        self._compressed = self._content = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._content and self._decompress_more():
            pass
        length = min(len(buffer), len(self._content))
        buffer[:length] = self._content[:length]
        self._content = self._content[length:]
        return length

    def _decompress_more(self) -> bool:
        """False at the end of the file."""
        import zstandard

        if not self._compressed:
            self._compressed = self._raw.read(_CHUNK_BYTES)
        if not self._compressed:
            if self._frame is not None:
                raise EOFError("the file ends within a zstd frame")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            self._content = memoryview(self._frame.decompress(self._compressed))
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return True
