"""A folder that holds something else is not written to."""

import pytest

from llama_jax.errors import InputError
from train.output_folder import check_output_folder
from train.run_folder import check_run_folder


def test_a_run_may_lie_where_nothing_or_a_run_is(tmp_path):
    check_run_folder(tmp_path / "a" / "b")
    check_run_folder("a-name-that-is-not-here")
    (tmp_path / ".DS_Store").touch()
    check_run_folder(tmp_path)
    (tmp_path / "config.json").touch()
    (tmp_path / "metrics.jsonl").touch()
    check_run_folder(tmp_path)


def test_a_folder_that_holds_something_else_is_named_with_it(tmp_path):
    (tmp_path / "manifest.json").touch()
    with pytest.raises(InputError) as error:
        check_run_folder(tmp_path)
    assert str(error.value) == (
        f"--output {tmp_path}: holds manifest.json and no run (no config.json); name another folder"
    )


@pytest.mark.parametrize("below, above", [("", ""), ("/a/b", "{} ")])
def test_a_file_is_no_folder(tmp_path, below, above):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError) as error:
        check_output_folder(f"{file}{below}")
    assert (
        str(error.value) == f"--output {file}{below}: {above.format(file)}is a file; name a folder"
    )
