"""Writing corpora and reading data sets back, for the tests of preparing."""

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import zstandard

from train.data.packed_rows import PackedRows

TEXTS = [
    "To be, or not to be, that is the question:",
    "Über den Wolken \u2014 नमस्ते",
    'A "quoted"\nsecond line\twith a tab',
    "short",
    "<|im_end|> is no header here <|endoftext|>",
    "",
    "the tokens of the text of the test " * 20,
]


def jsonl(texts, field="text") -> bytes:
    return "".join(json.dumps({"id": i, field: t}) + "\n" for i, t in enumerate(texts)).encode()


def compressed(content: bytes, ending: str) -> bytes:
    return {"gz": gzip.compress, "zst": zstandard.compress, "": bytes}[ending](content)


def parquet(texts, field="text", **options) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"id": range(len(texts)), field: texts}), buffer, **options
    )
    return buffer.getvalue()


def stream_of(folder) -> np.ndarray:
    """All tokens of a prepared folder, in order."""
    rows = PackedRows(folder)
    parts = [rows[0].tokens[:1], *(row.tokens[1:][row.segment_ids[1:] > 0] for row in rows)]
    return np.concatenate(parts)


def documents_of(folder) -> list[list[int]]:
    """The tokens between BOS and EOS of every document of a prepared folder."""
    manifest = PackedRows(folder).manifest
    documents, document = [], []
    for token in stream_of(folder).tolist():
        if token == manifest.eos_id:
            documents.append(document)
            document = []
        elif token != manifest.bos_id:
            document.append(token)
    assert not document
    return documents


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def command(folder: Path, *arguments: str, before: str = "") -> list[str]:
    """`llama-jax data prepare` with units of about 2,000 bytes, as a process of its own. Guarded as
    every program that starts processes by spawn must be."""
    program = folder / "program.py"
    program.write_text(
        "import train.data.prepare, train.data.work_units as work_units\n"
        "from llama_jax.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    work_units.MIN_UNIT_BYTES = 2000\n"
        "    train.data.prepare.TOKENS_PER_SHARD = 1000\n"
        f"    {before or 'pass'}\n"
        "    main()\n"
    )
    return [sys.executable, str(program), "data", "prepare", *arguments]
