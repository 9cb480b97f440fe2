"""Files that are there whole or as they were, whatever stops their writer."""

import os
import signal
import subprocess
import sys

import pytest

from llama_jax.whole_file import remove_leftovers, whole_file, write_lines


def test_it_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "out.txt"
    write_lines(path, ["ä", "b"])
    assert path.read_bytes() == "ä\nb\n".encode()
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == "ä\nb\n".encode() and len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_all_is_as_it_was(tmp_path, error):
    path = tmp_path / "out.txt"
    path.write_text("before")

    def lines():
        yield "half"
        raise error

    with pytest.raises(error):
        write_lines(path, lines())
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_lines(tmp_path / "folder", ["x"])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        write_lines(tmp_path / "no" / "out.txt", ["x"])
    assert missing.value.filename == str(tmp_path / "no" / "out.txt")
    # /dev/full is a disk that is full: only the flush of what is written there fails.
    with pytest.raises(OSError, match="No space left") as full, whole_file(tmp_path / "x") as file:
        os.dup2(descriptor := os.open("/dev/full", os.O_WRONLY), file.fileno())
        os.close(descriptor)
        file.write(b"x")
    assert full.value.filename == str(tmp_path / "x") and not list(tmp_path.iterdir())


def test_what_a_killed_writer_leaves_is_no_output_and_can_be_removed(tmp_path):
    path, other = tmp_path / "out[1].txt", tmp_path / "out[1].txt.more"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from llama_jax.whole_file import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for one in (path, other):
        killed = subprocess.run([sys.executable, "-c", program, str(one)])
        assert killed.returncode == -signal.SIGKILL and not one.exists()
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out[1].txt.more.")
