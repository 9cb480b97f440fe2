"""Whether the files of an OCDBT folder are all there, and as long as its tree says.

OCDBT, tensorstore's key-value store, keeps values in a few data files and says in a B+tree where
each lies (https://google.github.io/tensorstore/kvstore/ocdbt/index.html). Walking the tree reads no
value, so a copy that was cut short is found out before hours of reading, and the file is named.
"""

from collections.abc import Iterator
from pathlib import Path

from llama_jax.errors import InputError


def check_ocdbt_files(folder: Path) -> None:
    """Raises `InputError` that names the first file which is missing, cut short, or no part of the
    tree."""
    import tensorstore

    try:
        base = tensorstore.KvStore.open(
            {"driver": "file", "path": f"{folder.absolute()}/"}
        ).result()
        root = tensorstore.ocdbt.dump(base).result()["versions"][-1]["root"]["location"]
        locations = set(_locations(base, root))
    except (ValueError, LookupError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder}: damaged ({reason}); copy it again or take another") from error
    needed: dict[str, int] = {}
    for location in locations:
        name, end = _extent(location)
        needed[name] = max(needed.get(name, 0), end)
    for name, end in sorted(needed.items()):
        _check_file(folder / name, end)


def _locations(base, node: str) -> Iterator[str]:
    """All places that the tree below `node` names, such as `value:ocdbt.process_0/:d/4f..:0:512`:
    kind, folder, file, first byte, number of bytes. A node is checked before it is read."""
    import tensorstore

    folder = Path(base.path)
    name, end = _extent(node)
    _check_file(folder / name, end)
    yield node
    for entry in tensorstore.ocdbt.dump(base, node).result()["entries"]:
        if "indirect_value" in entry:
            yield entry["indirect_value"]
        elif "inline_value" not in entry:
            yield from _locations(base, entry["location"])


def _extent(location: str) -> tuple[str, int]:
    """The file, relative to the folder of the root, and how long it must be."""
    _, base, name, offset, length = location.split(":")
    return base + name, int(offset) + int(length)


def _check_file(file: Path, size: int) -> None:
    if not file.is_file():
        raise InputError(f"{file}: missing, so this checkpoint is damaged; copy it again")
    if file.stat().st_size < size:
        raise InputError(
            f"{file}: has {file.stat().st_size:,} bytes where {size:,} were written, so this "
            "checkpoint is damaged; copy it again"
        )
