"""The text of a corpus file in blocks of bounded size, whole lines where lines are that short.

Documents of JSONL and Parquet come one by one, as `data prepare` reads them. A text file, which is
one document there, is read here a mebibyte at a time: where a document ends means nothing to counts
of words. Of text that is not UTF-8 the line is the damaged record, not the file.
"""

from collections.abc import Iterator

from train.data.compressed_file import damage_named, decompressed
from train.data.corpus_files import CorpusFile
from train.data.documents import Record, read_documents
from train.data.work_units import plan_units

_BLOCK_BYTES = 1 << 20
# A longer line is cut, at a space if it has one.
_MAX_LINE_BYTES = 4 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def text_blocks(file: CorpusFile, *, text_field: str) -> Iterator[Record]:
    """Texts, and what is damaged, as `read_documents` gives them.

    Raises `InputError` if the file is damaged as a whole.
    """
    if file.kind == "text":
        yield from _blocks(file)
        return
    for unit in plan_units([file]):
        for piece in unit:
            yield from read_documents(piece, text_field=text_field)


def _blocks(file: CorpusFile) -> Iterator[Record]:
    offset, rest, counted = 0, b"", 0
    with open(file.path, "rb") as raw, damage_named(file):
        source = decompressed(raw, file)
        while chunk := source.read(_BLOCK_BYTES):
            if not offset and not rest:
                offset = len(_BYTE_ORDER_MARK) if chunk.startswith(_BYTE_ORDER_MARK) else 0
                chunk = chunk[offset:]
            rest += chunk
            end = _end_of_lines(rest)
            block, rest = rest[:end], rest[end:]
            if block:
                yield from _decoded(file.path, block, offset, raw.tell() - counted)
                offset, counted = offset + len(block), raw.tell()
    if rest:
        yield from _decoded(file.path, rest, offset, file.num_bytes - counted)


def _end_of_lines(content: bytes) -> int:
    """After the last line end; of a line that is too long, after its last space or character."""
    if end := content.rfind(b"\n") + 1:
        return end
    if len(content) < _MAX_LINE_BYTES:
        return 0
    end = content.rfind(b" ")
    return end if end > 0 else _start_of_last_character(content)


def _start_of_last_character(content: bytes) -> int:
    """UTF-8's later bytes are 10xxxxxx, three at most; anything else is damaged anyway."""
    start = len(content) - 1
    while start > len(content) - 4 and content[start] & 0xC0 == 0x80:
        start -= 1
    return start


def _decoded(path: str, block: bytes, offset: int, num_bytes: int) -> Iterator[Record]:
    """The text of a block; if a line of it is damaged, the text without that, and complaints."""
    try:
        yield Record(block.decode(), "", num_bytes)
        return
    except UnicodeDecodeError:
        pass
    whole = []
    for line in block.splitlines(keepends=True):
        try:
            whole.append(line.decode())
        except UnicodeDecodeError as error:
            place = f"{path}: byte {offset + error.start}"
            yield Record(None, f"{place}: not UTF-8 text ({error.reason})", 0)
        offset += len(line)
    yield Record("".join(whole), "", num_bytes)
