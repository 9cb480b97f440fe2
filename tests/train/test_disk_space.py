"""A full disk says what to do; other errors stay what they are."""

import errno
import os

import pytest

from llama_jax.__main__ import main
from train import command
from train.disk_space import advising_space


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("path", [None, "run/checkpoints"])
def test_a_lack_of_space_is_one_line_with_the_way_out(monkeypatch, capsys, number, path):
    def fail(name):
        with advising_space("run", goes_on="from the last checkpoint"):
            raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(command, "find_run", fail)
    with pytest.raises(SystemExit) as stop:
        main(["train", "x"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {path or 'run'}: {os.strerror(number)}; free space there and run the same command "
        "again: it goes on from the last checkpoint\n"
    )


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no", "x"), OSError("x")])
def test_other_errors_pass(error):
    with pytest.raises(OSError) as caught, advising_space("run", goes_on="on"):
        raise error
    assert caught.value is error
