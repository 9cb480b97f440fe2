"""Whether a model is the one that work was begun with, told by its files in a second or two.

Reading hundreds of gigabytes again would cost a large model minutes. So a file of up to 64 MiB
(configs, tokenizers, chat templates) is hashed whole, and of a larger one its length and 4 KiB of
every 8 MiB: any tensor of a large model spans several of them, and training changes all of it.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_WHOLE_BYTES = 64 << 20
_STRIDE, _SAMPLE = 8 << 20, 4 << 10


def model_fingerprint(path: Path) -> str:
    """SHA-256, hexadecimal, of the checkpoint at `path`, a file or a folder; where it lies does not
    matter. Hidden files do not count."""
    digest = hashlib.sha256()
    for file, name in _files(path):
        size = os.stat(file).st_size
        digest.update(f"{len(name)} {name} {size} ".encode())
        with open(file, "rb") as opened:
            if size <= _WHOLE_BYTES:
                while piece := opened.read(1 << 20):
                    digest.update(piece)
                continue
            for offset in (*range(0, size, _STRIDE), size - _SAMPLE):
                opened.seek(offset)
                digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Each file and its name inside the checkpoint, sorted. A file alone has no name: a .gguf may
    be renamed."""
    if path.is_file():
        yield path, ""
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if not name.startswith(".") and file.is_file():
                yield file, file.relative_to(path).as_posix()
