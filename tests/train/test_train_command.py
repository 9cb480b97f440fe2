"""`llama-jax train`: which run, which fields, and every mistake in one line."""

import dataclasses
import inspect

import pytest

from configs.tiny_cpu import tiny_cpu
from llama_jax.errors import InputError
from train import command
from train.config import ProfileWindow
from train.run_json import read_run, write_run
from train.run_lock import RunLock
from train.run_past import note_finished
from train.run_source import named_runs


@pytest.fixture
def started(monkeypatch):
    """What `start_run` was called with, instead of training."""
    calls = []
    monkeypatch.setattr(command, "start_run", lambda run, **options: calls.append((run, options)))
    return calls


def test_a_named_run_starts_as_it_is(started):
    command.train("tiny_cpu")
    assert started == [(tiny_cpu(), {"resume": True, "quiet": False})]


def test_fields_of_any_depth_are_replaced(started):
    options = [
        "--output x --seed 7 --optimizer.beta2 0.9 --optimizer.spike-factor 3 --mesh.fsdp 2",
        "--model.num-layers 2 --stages.0.num-tokens 4096 --stages.0.batch.1.rows 32",
        "--stages.0.learning-rate.peak 1e-4 --stages.1.learning-rate.start 1e-5",
        "--stages.0.mixture.0.path there --checkpoint.best-set None --evaluations.0.num-rows 8",
        "--profile-steps 5 2 --no-resume --quiet",
    ]
    command.train("tiny_cpu", *" ".join(options).split())
    ((run, given),) = started
    assert given == {"resume": False, "quiet": True}
    assert (run.output, run.seed, run.mesh.fsdp, run.model.num_layers) == ("x", 7, 2, 2)
    assert (run.optimizer.beta2, run.optimizer.spike_factor) == (0.9, 3.0)
    assert run.stages[0].num_tokens == 4096 and run.stages[0].batch[1].rows == 32
    assert run.stages[0].learning_rate.peak == 1e-4 and run.stages[1].learning_rate.start == 1e-5
    assert run.stages[0].mixture[0].path == "there" and run.checkpoint.best_set is None
    assert run.evaluations[0].num_rows == 8 and run.profile == ProfileWindow(5, 2)
    # The rest is as it was.
    assert run.stages[0].learning_rate.end == tiny_cpu().stages[0].learning_rate.end
    assert run.tokenizer == tiny_cpu().tokenizer


@pytest.mark.parametrize("name", named_runs())
def test_every_run_can_be_overridden(started, name):
    """Scaling, gates and rates of several kinds keep their kinds, and need no subcommand."""
    command.train(name, "--seed", "3")
    wanted = dataclasses.replace(command.find_run(name), seed=3)
    assert started[0][0] == wanted


MISTAKES = {
    "unknown run": (["tiny"], "no run 'tiny'; did you mean tiny_cpu?"),
    "far run": (["zzz"], "one of: tiny_cpu, pretrain_8b"),
    "unknown field": (["tiny_cpu", "--optimizer.beta", "1"], "--optimizer.beta1"),
    "misspelt stage": (["tiny_cpu", "--stages.0.num-token", "1"], "--stages.0.num-tokens"),
    "no such stage": (["tiny_cpu", "--stages.7.num-tokens", "1"], "--stages.7.num-tokens"),
    "other type": (["tiny_cpu", "--mesh.fsdp", "two"], "--mesh.fsdp: invalid literal for int()"),
    "no value": (["tiny_cpu", "--seed"], "Missing value for argument '--seed'"),
    "surplus": (["tiny_cpu", "other"], "other"),
    "no run": (["--seed", "1"], "the run comes first"),
    "list of something": (["--list", "x"], "--list stands alone"),
    "no such file": (["nowhere.py:run"], "nowhere.py: no such file"),
    "part of a cluster": (["tiny_cpu", "--coordinator", "x:1"], "give --num-processes and --proc"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(started, mistake):
    arguments, message = MISTAKES[mistake]
    with pytest.raises(InputError) as error:
        command.train(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not started


def test_a_function_in_a_file_is_a_run(started, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses\nfrom configs.tiny_cpu import tiny_cpu\n"
        "def wider():\n    return dataclasses.replace(tiny_cpu(), seed=5)\n"
        "def wrong():\n    return 5\n"
        "def needs(size, *, seed=1):\n    return tiny_cpu()\n"
    )
    command.train(f"{file}:wider", "--vocab-chunk", "88")
    assert started[0][0] == dataclasses.replace(tiny_cpu(), seed=5, vocab_chunk=88)
    with pytest.raises(InputError, match="mine.py: has no function 'wide'; did you mean wider"):
        command.train(f"{file}:wide")
    with pytest.raises(InputError, match="must return a RunConfig, not int"):
        command.train(f"{file}:wrong")
    with pytest.raises(InputError, match="mine.py:needs: is called without .* 'size'$"):
        command.train(f"{file}:needs")


@pytest.mark.parametrize(
    "text, message",
    [
        ("def one(seed=1): 0 / 0\ndef two(size): ...\ndef three(*, size): ...\n", "{0}:one"),
        ("def one(): ...\ndef two(*sizes): ...\n0 / 0\n", "{0}:one or {0}:two"),
        ("RUN = 5\n", "{0}: defines no function without arguments, which could return a run"),
        ("def one(:\n", "{0}: is not Python (invalid syntax"),
    ],
)
@pytest.mark.parametrize("end", ["", ":"])
def test_a_file_without_a_function_is_answered_with_those_it_has(
    started, tmp_path, text, message, end
):
    file = tmp_path / "my_run.py"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        command.train(f"{file}{end}")
    said = str(error.value)
    assert "\n" not in said and message.format(file) in said
    assert ":two" not in said or ":two" in message  # those that need an argument


def test_the_folder_of_a_run_is_a_run_wherever_it_is_moved(started, tmp_path):
    write_run(dataclasses.replace(tiny_cpu(), output=str(tmp_path / "old"), seed=5))
    (tmp_path / "old").rename(tmp_path / "new")
    command.train(str(tmp_path / "new"))
    assert started[0][0] == dataclasses.replace(tiny_cpu(), output=str(tmp_path / "new"), seed=5)
    with pytest.raises(InputError, match="no config.json there, so it is not the folder of a run"):
        command.train(str(tmp_path))


@pytest.mark.parametrize("arguments", [["--list"], ["--help"], []])
def test_the_runs_are_listed(capsys, arguments):
    command.train(*arguments)
    printed = capsys.readouterr().out
    for name in named_runs():
        assert f"\n  {name} " in f"\n{printed}"
    assert max(map(len, printed.splitlines())) <= 110


def test_the_help_of_a_run_has_its_docstring_and_its_fields(capsys):
    with pytest.raises(SystemExit) as stop:
        command.train("tiny_cpu", "--help")
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert inspect.getdoc(tiny_cpu).splitlines()[0] in printed
    for words in ("--stages.0.learning-rate.peak FLOAT", "HOST:PORT of process 0", "--no-resume"):
        assert words in printed


def test_starting_writes_the_config_and_refuses_another(monkeypatch, tmp_path, capsys):
    """In this order: checks, the config of the run before, the config, training."""
    import sys
    import types

    from train import data_checks, resume_checks
    from train.progress import Progress

    trained = []
    loop = types.SimpleNamespace(
        train=lambda run, *, quiet, changes: trained.append((run, changes))
    )
    monkeypatch.setitem(sys.modules, "train.loop", loop)
    monkeypatch.setattr(data_checks, "check_data", lambda run, mesh, *, begins: None)
    run = dataclasses.replace(tiny_cpu(), output=str(tmp_path))
    (tmp_path / "manifest.json").touch()
    with pytest.raises(InputError, match="holds manifest.json and no run"):
        command.start_run(run, resume=True, quiet=True)
    (tmp_path / "manifest.json").unlink()
    with RunLock(tmp_path) as lock, pytest.raises(InputError, match="another process trains in it"):
        lock.take()
        command.start_run(run, resume=True, quiet=True)
    assert not trained and not (tmp_path / "config.json").exists()
    command.start_run(run, resume=False, quiet=True)
    assert read_run(tmp_path) == run and trained == [(run, [])]

    progress = Progress(step=5, stage_step=5)
    monkeypatch.setattr(resume_checks, "latest_progress", lambda folder: progress)
    with pytest.raises(InputError, match="--no-resume: .* holds a run of 5 steps"):
        command.start_run(run, resume=False, quiet=True)
    with pytest.raises(InputError, match="^seed: was 0 and is 1 now"):
        command.start_run(dataclasses.replace(run, seed=1), resume=True, quiet=True)
    more = dataclasses.replace(run, log_every_steps=2)
    command.start_run(more, resume=True, quiet=True)
    assert read_run(tmp_path) == more
    assert trained[1:] == [(more, [f"log_every_steps: {run.log_every_steps} -> 2"])]
    # When it is finished nothing is left to do, unless something changes.
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "llama_jax.json").touch()
    note_finished(more, 5)
    command.start_run(more, resume=True, quiet=True)
    assert capsys.readouterr().out == f"{tmp_path}: already finished, after 5 steps\n"
    assert len(trained) == 2
    command.start_run(run, resume=True, quiet=True)
    assert len(trained) == 3
    with pytest.raises(
        InputError, match=r"^stages\[0\].batch\[0\].rows: 12 is not a multiple of 8"
    ):
        wrong = dataclasses.replace(run.stages[0].batch[0], rows=12)
        stage = dataclasses.replace(run.stages[0], batch=(wrong,))
        command.start_run(
            dataclasses.replace(run, stages=(stage, run.stages[1])), resume=True, quiet=True
        )
