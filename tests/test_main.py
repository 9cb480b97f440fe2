"""The front door in real processes: quick, helpful, one line and exit code 2 for bad input."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax import __main__ as front_door
from llama_jax import __version__
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.config import TINY
from llama_jax.errors import InputError

ROOT = Path(__file__).parents[1]


def run(*arguments, columns=80, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, "-m", "llama_jax", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The same weights in two formats, and others."""
    import jax
    import numpy as np

    from llama_jax.model import abstract_params

    folder = tmp_path_factory.mktemp("main")
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape, scale=0.1).astype(np.float32),
        abstract_params(TINY),
    )
    save_checkpoint(folder / "a", TINY, params, format="orbax")
    save_checkpoint(folder / "b", TINY, params, format="hf")
    params["head"] = params["head"] + np.float32(0.01)
    save_checkpoint(folder / "c", TINY, params, format="hf")
    return folder


def test_help_names_every_command_without_importing_them():
    code = "import sys, llama_jax.__main__ as m; m._run([]); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    for command in front_door.COMMANDS:
        assert f"\n  {command} " in result.stdout
    loaded = set(result.stdout.splitlines()[-1].split())
    assert not loaded & {"jax", "numpy", "tyro", "rich", "llama_jax.config"}


def test_help_imports_nothing_heavy():
    """What keeps it under 0.3 s, without a clock that other work on the machine would upset."""
    command = [sys.executable, "-X", "importtime", "-m", "llama_jax", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "usage: llama-jax" in result.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "llama_jax" in loaded
    assert not loaded & {"jax", "numpy", "tyro", "rich", "torch", "transformers", "tokenizers"}


def test_version():
    assert run("--version").stdout == f"llama-jax {__version__}\n"


@pytest.mark.parametrize("command", front_door.COMMANDS)
def test_every_command_has_typed_arguments_and_an_example(command):
    module, name = front_door.COMMANDS[command][0].split(":")
    function = getattr(importlib.import_module(module), name)
    assert f"llama-jax {command}" in inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not parameter.empty


def test_command_help_shows_the_example():
    result = run("convert", "--help")
    assert result.returncode == 0
    assert "Example: llama-jax convert" in result.stdout
    assert "--dtype" in result.stdout
    # What its arguments are called, and no line that is broken where the docstring is.
    assert "[OPTIONS] SOURCE DESTINATION\n" in result.stdout
    assert "by default each keeps" in " ".join(re.sub("[│╭╮╰╯─]", "", result.stdout).split())


def test_command_help_fits_the_terminal():
    result = run("select", "--help", columns=60)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 60 and "\n\n\n" not in result.stdout
    is_example = [line.startswith(" Example: llama-jax select ") for line in lines]
    assert len(lines[is_example.index(True)]) > 45  # and is filled


def test_half_a_command_shows_its_other_halves():
    for arguments, code in ((["bench", "--help"], 0), (["bench"], 2)):
        result = run(*arguments)
        assert result.returncode == code and result.stderr == ""
        assert "\n  bench infer " in result.stdout and "convert" not in result.stdout


def test_no_command_is_the_first_word_of_another():
    first = {command.split()[0] for command in front_door.COMMANDS if " " in command}
    assert not first & front_door.COMMANDS.keys()


def test_two_words_reach_their_function():
    result = run("bench", "infer", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: llama-jax bench infer ")


# Arguments, and what the line says. {} is a folder with checkpoints a and b.
MISTAKES = {
    "unknown command": (["convrt"], "no command 'convrt'; did you mean convert"),
    "far command": (["xyzzy"], "one of: quickstart, convert"),
    "half a command": (["bench", "inferr"], "no command 'bench inferr'; did you mean bench infer?"),
    "far half": (["bench", "xyzzy"], "no command 'bench xyzzy'; one of: bench infer"),
    "option for half a command": (
        ["bench", "--quiet"],
        "no command 'bench --quiet'; one of: bench",
    ),
    "missing argument": (["convert", "x"], "--to"),
    "bad choice": (["convert", "x", "y", "--to", "onnx"], "--to must be one of "),
    "bad dtype": (
        ["batch", "a", "b", "c", "--dtype", "x"],
        "--dtype must be one of bfloat16, float16, float32, not 'x'\n",
    ),
    "misspelt option": (["convert", "x", "y", "--to", "hf", "--dtyp", "z"], "--dtype"),
    "misspelt number": (
        ["batch", "a", "b", "c", "--max-new-token", "3"],
        "error: unknown option --max-new-token; did you mean --max-new-tokens?\n",
    ),
    "unknown options": (
        ["convert", "x", "y", "--to", "hf", "--dtyp", "z", "--quit", "--xyz"],
        "error: unknown options --dtyp (did you mean --dtype?), --quit (did you mean --quiet?), "
        "--xyz\n",
    ),
    "no such source": (["convert", "nowhere", "y", "--to", "hf"], "nowhere: no such file"),
    "no such path": (["inspect", "nowhere"], "nowhere: no such file or folder"),
    "no checkpoint": (["inspect", "{}"], "no checkpoint there"),
    "taken destination": (["convert", "{}/a", "{}/b", "--to", "hf"], "b: already exists"),
    "forbidden": (["convert", "{}/a", "/proc/x", "--to", "hf"], "/proc/x"),
    "no prompt file": (["compare", "{}/a", "{}/b", "--prompt-file", "no.txt"], "no.txt: No such"),
    "unknown run": (["train", "tiny"], "no run 'tiny'; did you mean tiny_cpu?"),
    "unknown field": (["train", "tiny_cpu", "--optimizer.beta", "1"], "--optimizer.beta1"),
    "bad tolerance": (["compare", "{}/a", "{}/b", "--tolerance", "2"], "--tolerance: 2.0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(checkpoints, mistake):
    arguments, message = MISTAKES[mistake]
    result = run(*(argument.format(checkpoints) for argument in arguments))
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert sorted(path.name for path in checkpoints.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("to", ["hf", "meta", "orbax"])
def test_a_file_size_limit_is_one_line(checkpoints, tmp_path, to):
    """As a disk that fills up while it is written to: EFBIG comes where ENOSPC would."""
    command = f"ulimit -f 8; exec {sys.executable} -m llama_jax convert a {tmp_path}/x --to {to}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    result = subprocess.run(
        ["bash", "-c", command], cwd=checkpoints, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 2
    # Threads of tensorstore may complain before or after.
    assert f"error: {tmp_path / 'x'}: File too large" in result.stderr.splitlines()
    assert not list(tmp_path.iterdir())


def test_what_is_no_input_error_keeps_its_traceback(monkeypatch):
    def broken():
        raise ValueError("ours to mend")

    module = type(sys)("broken_command")
    module.broken = broken
    monkeypatch.setitem(sys.modules, "broken_command", module)
    monkeypatch.setitem(front_door.COMMANDS, "broken", ("broken_command:broken", ""))
    with pytest.raises(ValueError, match="ours to mend"):
        front_door.main(["broken"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a: wrong\nturn"), 2, "error: a: wrong turn\n"),
        (OSError(28, "No space left on device", "/x"), 2, "error: /x: No space left on device\n"),
    ],
    ids=["input", "system"],
)
def test_errors_have_their_codes(monkeypatch, capsys, error, code, line):
    def fail(arguments):
        raise error

    monkeypatch.setattr(front_door, "_run", fail)
    with pytest.raises(SystemExit) as stop:
        front_door.main([])
    assert stop.value.code == code
    assert capsys.readouterr().err == line


def test_convert_says_what_it_did(checkpoints, tmp_path):
    result = run("convert", checkpoints / "a", tmp_path / "x", "--to", "hf")
    assert result.returncode == 0, result.stderr
    assert "bytes in" in result.stdout and "peak anonymous memory" in result.stdout
    assert result.stdout.endswith(", verified\n")


def test_compare_tells_by_its_code(checkpoints):
    same = run("compare", checkpoints / "a", checkpoints / "b")
    assert same.returncode == 0, same.stderr
    assert same.stdout.splitlines()[-1] == "the same within 0.0001"
    other = run("compare", checkpoints / "a", checkpoints / "c")
    assert other.returncode == 1
    assert "not the same" in other.stdout


@pytest.mark.parametrize(
    "name, code, word", [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")]
)
def test_signals_unwind_and_say_so(name, code, word):
    script = f"""
import os, signal, time
from llama_jax import __main__, doctor
def stopped():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    finally:
        print("cleaned up")
doctor.doctor = stopped
__main__.main(["doctor"])
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr.strip()) == (code, word)
    assert result.stdout.strip() == "cleaned up"
