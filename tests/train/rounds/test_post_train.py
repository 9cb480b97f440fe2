"""Rounds of post-training: every step once, whoever is killed when."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_jax.__main__ import main
from llama_jax.errors import InputError
from train.rounds.check_commands import check_commands
from train.rounds.done_steps import DoneSteps
from train.rounds.dry_run import shell_script
from train.rounds.evaluation_table import evaluation_table, print_table
from train.rounds.plan import plan
from train.rounds.rounds_display import make_display
from train.rounds.run_rounds import run_rounds
from train.rounds.run_step import Ended
from train.rounds.step import Step

from .small_rounds import Letters, command, letters, write_programs

RUN = f"{Path(__file__).parent / 'small_rounds.py'}:letters"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_programs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def post_train(*arguments, code=0):
    """The command in this process."""
    with pytest.raises(SystemExit) as stop:
        main(["post-train", RUN, *arguments])
    assert stop.value.code == code


def refused(capsys, *arguments):
    """What the command says that ends with code 2."""
    capsys.readouterr()
    post_train(*arguments, code=2)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    return said.removeprefix("error: ")


def done(output="out"):
    return [
        record["step"] for record in json.loads(Path(output, "steps.json").read_text())["steps"]
    ]


def test_a_round_begins_with_the_model_of_the_one_before(folder, capsys):
    post_train("out")
    assert Path("out/round-1/policy").read_text() == "a1b"
    assert Path("out/round-2/policy").read_text() == "a1b2b"
    said = capsys.readouterr()
    assert "out/round-2/policy: the model that round 2 ends with" in said.out
    row = next(line for line in said.out.splitlines() if "accuracy" in line)
    assert "3.0% ± 1.0%" in row and "5.0% ± 1.0%" in row
    assert "round-2/tune (5 of 6): python -m append out/round-2/policy b out/round" in said.err
    assert Path("out/round-2/logs/sample.log").read_text() == (
        "$ python -m append out/round-2/sampled 2 out/round-1/policy\nreads out/round-1/policy\n"
    )
    # A second time there is nothing to do, and no step writes again.
    before = {path: path.stat().st_mtime_ns for path in Path("out/round-2").glob("*")}
    post_train("out", "--quiet")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert capsys.readouterr().err == ""


def test_dry_run_is_a_shell_script_that_does_the_same(folder, capfd):
    post_train("by_hand", "--dry-run")
    script = capfd.readouterr().out
    assert "\n# round-2/tune\npython -m append by_hand/round-2/policy b by" in script
    assert not Path("by_hand").exists()
    subprocess.run(["bash", "-c", script], check=True)
    post_train("out")
    for name in ("round-1/policy", "round-2/policy", "round-2/numbers/results.json"):
        assert Path("by_hand", name).read_bytes() == Path("out", name).read_bytes()
    capfd.readouterr()
    post_train("out", "--until", "round-1", "--dry-run")
    script = capfd.readouterr().out
    assert "# round-1/tune (done in 0:00:0" in script and "round-2" not in script


def test_until_ends_at_a_step_or_a_round_and_more_rounds_may_follow(folder, capsys):
    post_train("out", "--until", "round-1/sample")
    assert done() == ["round-1/sample"]
    post_train("out", "--until", "round-1")
    assert done() == ["round-1/sample", "round-1/tune", "round-1/measure"]
    post_train("out", "--rounds", "3")
    assert len(done()) == 9 and Path("out/round-3/policy").read_text() == "a1b2b3b"
    said = refused(capsys, "out", "--rounds", "3", "--until", "round-4/tune")
    assert said.startswith("--until round-4/tune: no such step; name one of round-1, round-2, rou")
    assert refused(capsys, "out").startswith("round-3/sample: is done, and is no step of this con")


def test_a_changed_config_is_refused_and_a_moved_folder_is_not(folder, capsys):
    post_train("out", "--until", "round-1")
    said = refused(capsys, "out", "--new", "c")
    assert said == (
        "round-1/tune: was done as `python -m append OUTPUT/round-1/policy b "
        "OUTPUT/round-1/sampled`, and the config now has `round-1/tune: python -m append "
        "OUTPUT/round-1/policy c OUTPUT/round-1/sampled`; name another OUTPUT, or change the "
        "config back"
    )
    Path("out").rename("moved")
    post_train("moved")
    assert Path("moved/round-2/policy").read_text() == "a1b2b"


def test_a_file_that_changed_under_a_step_is_named_and_one_that_is_gone_is_not(folder, capsys):
    post_train("out", "--until", "round-1/tune")
    Path("base").write_text("other")
    assert refused(capsys, "out") == (
        "round-1/sample: base is not what it was when this step was done; put it back, or name "
        "another OUTPUT"
    )
    Path("base").unlink()
    post_train("out")
    assert Path("out/round-2/policy").read_text() == "a1b2b"


def test_a_step_that_fails_is_named_with_its_command_and_complaint(folder, capsys):
    Path("fails").write_text("2")
    said = refused(capsys, "out")
    assert said == (
        "round-2/sample failed (code 2): cannot append 2 -- its command: python -m append "
        "out/round-2/sampled 2 out/round-1/policy -- all that it said: out/round-2/logs/sample.log"
    )
    assert done()[-1] == "round-1/measure"
    Path("fails").unlink()
    post_train("out")
    assert Path("out/round-2/policy").read_text() == "a1b2b"


def start(folder, *arguments):
    """The command in a process, that has come to where a step waits; and the step's process."""
    (folder / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not ((pid := folder / "pid").exists() and pid.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    return process, int(pid.read_text())


def test_killed_in_a_step_it_ends_with_the_same_bytes(folder, capsys):
    Path("slowly").write_text("2")
    process, step = start(folder, "out")
    process.kill()
    process.communicate()
    # The step lives on, and the folder is still its own.
    assert refused(capsys, "out") == (
        f"out: another process runs these rounds in it (pid {step}); wait for its end, or name "
        "another OUTPUT"
    )
    os.kill(step, signal.SIGKILL)
    Path("slowly").unlink()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{step}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done()[-1] == "round-1/measure" and Path("out/round-2/sampled.partial").exists()
    post_train("out")
    post_train("whole")
    for name in ("round-2/policy", "round-2/numbers/results.json"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_passed_on_and_waited_for(folder, number, code):
    Path("slowly").write_text("b")
    process, _ = start(folder, "out")
    process.send_signal(number)
    process.communicate()
    assert process.returncode == code
    assert Path("saved").read_text() == number.name
    assert done() == ["round-1/sample"]


def test_steps_are_launched_as_the_machine_needs_it(folder, capsys):
    prefix = "env LAUNCHED=1"
    post_train("out", "--dry-run", "--launch", "append", prefix)
    assert "\nenv LAUNCHED=1 python -m append out/round-1/sampled" in capsys.readouterr().out
    post_train("out", "--until", "round-1/tune", "--launch", "append", prefix)
    post_train("out")  # launched otherwise, a step is the same
    said = refused(capsys, "out", "--launch", "trian", prefix)
    assert said == "--launch trian: no step runs it; there are: append, measure"
    said = refused(capsys, "other", "--launch", "append", "no-such-launcher")
    assert said == "round-1/sample: no program 'no-such-launcher' to run it"


def with_step(*words, **fields):
    """Rounds of one step."""

    class One(Letters):
        def round_steps(self, round):
            return (Step("one", words, **fields),)

    return One(base="base", rounds=1)


def test_every_command_line_is_read_before_the_first_step(folder):
    for words, said in (
        ("llama-jax averag a b c", "no command 'averag'; did you mean average or "),
        ("llama-jax average a b c --overwite", "unknown option --overwite; did you mean --overw"),
        ("llama-jax train tiny_cup", "no run 'tiny_cup'; did you mean tiny_cpu?"),
        ("llama-jax train tiny_cpu --sed 3", "unknown option --sed; did you mean --seed?"),
        ("python -m no_such_module", "there is no Python module 'no_such_module'"),
        ("llama-jax verify --help", "asks for help"),
        ("llama-jax average a b c", "add --overwrite, or it cannot be started again after it w"),
    ):
        with pytest.raises(InputError) as error:
            check_commands(plan(with_step(*shlex.split(words)), Path("out")))
        assert str(error.value).startswith(f"round-1/one: {said}")
        assert str(error.value).endswith(f"-- in: {words}")


@pytest.mark.parametrize(
    "words, fields, said",
    [
        ("llama-jax", {}, "step one: its command must begin with llama-jax or python -m, not 'lla"),
        ("rm -r /", {}, "step one: its command must begin with llama-jax or python -m, not 'rm -r"),
        ("llama-jax evaluate m", {"results": "r.json"}, "step one: results r.json is none of its"),
    ],
)
def test_a_step_that_is_none_is_refused(words, fields, said):
    with pytest.raises(InputError) as error:
        Step("one", tuple(words.split()), **fields)
    assert str(error.value).startswith(said)


def test_an_exit_code_that_is_allowed_is_said(folder, capsys):
    words = ("python", "-m", "append", "x", "y", "no_such_file")
    config = with_step(*words, accepts=(0, 1))
    for quiet in (False, True):
        run_rounds(plan(config, Path(f"{quiet}")), 1, Path(f"{quiet}"), num_rounds=1, quiet=quiet)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("round-1/one: done in 0:00:0")
        assert said.endswith(f", with code 1: see {quiet}/round-1/logs/one.log")
    by_hand = shell_script(plan(config, Path("out")), DoneSteps(Path("out")))
    assert subprocess.run(["bash", "-c", by_hand], stderr=subprocess.DEVNULL).returncode == 0
    stricter = by_hand.replace("-qxE 1", "-qxE 2")
    assert stricter != by_hand
    assert subprocess.run(["bash", "-c", stricter], stderr=subprocess.DEVNULL).returncode == 1


def test_the_table_has_refusals_on_both_sides_and_what_was_not_answered(folder, capsys):
    share = {"mean": 0.25, "standard_error": None}
    part = {"questions": 4, "failed": 0, "metrics": {"refused": share}}
    results = {"method": "20 phrases", "harmful": part, "harmless": {**part, "failed": 2}}
    Path("rates.json").write_text(json.dumps(results))
    config = with_step("llama-jax", "refusals", outputs=("rates.json",), results="rates.json")
    table = evaluation_table(plan(config, Path("out")))
    assert table == {
        ("one", "harmful", "refused"): {"round-1": "25.0%"},
        ("one", "harmless", "refused"): {"round-1": "25.0%"},
        ("one", "harmless", "without an answer"): {"round-1": "2"},
    }
    print_table(table)
    assert "without an answer" in capsys.readouterr().out


def test_a_terminal_shows_the_round_the_step_and_what_it_says(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    first, second, *_ = plan(letters(), Path("out"))
    display = make_display(num_rounds=2, quiet=False)
    display.begin(first, index=0, num_steps=6)
    display.watch("step 3 of 8 [bold]")
    display.end(first, Ended(3723.4, 0))
    display.begin(second, index=1, num_steps=6)
    display.close()
    said = capsys.readouterr().err
    assert "round-1/sample: done in 1:02:03" in said and "round 1 of 2: tune" in said


def test_names_are_checked_and_given_once():
    with pytest.raises(InputError, match=r"step 'A b': must be named with small letters"):
        Step("A b", ("llama-jax", "verify"))

    class Twice(Letters):
        def round_steps(self, round):
            return super().round_steps(round) * 2

    with pytest.raises(InputError, match=r"round-1/sample: two steps have this name; rename one"):
        plan(Twice(base="base", rounds=1), Path("out"))
    with pytest.raises(InputError, match=r"--rounds must be at least 1, not 0"):
        plan(Letters(base="base", rounds=0), Path("out"))


def test_the_opening_comes_first_and_makes_the_policy_of_round_1(folder):
    class Opened(Letters):
        def opening(self, opening):
            policy = opening.path("policy")
            words = ("python", "-m", "append", policy, "0", opening.policy)
            return (Step("start", words, outputs=(policy,)),)

    first, second, *_ = plan(Opened(base="base", rounds=1), Path("out"))
    assert first.place == "round-0/start" and first.line.endswith("out/round-0/policy 0 base")
    assert second.line == "python -m append out/round-1/sampled 1 out/round-0/policy"
    assert plan(letters(), Path("out"))[0].line == "python -m append out/round-1/sampled 1 base"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (
            ["zzz", "out"],
            "no post-training 'zzz'; one of: post_training_8b, smollm2_sums (a function",
        ),
        (["post_training_8", "out"], "no post-training 'post_training_8'; did you mean post_train"),
        ([f"{RUN}s", "out"], f"{RUN.partition(':')[0]}: has no function 'letterss'; did you mean"),
        (["--rounds", "2"], "the run comes first: llama-jax post-train RUN OUTPUT --rounds ..."),
        ([RUN], f"Missing from llama-jax post-train {RUN}: OUTPUT the folder of all rounds."),
        ([RUN, "out", "--nwe", "c"], "unknown option --nwe; did you mean --new?"),
        ([RUN, "out", "--rounds", "two"], "Error parsing --rounds: invalid literal for int()"),
        ([RUN, "base"], "--output base: is a file; name a folder"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line(folder, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(["post-train", *arguments])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_help_lists_what_the_config_has(folder, capsys):
    with pytest.raises(SystemExit):
        main(["post-train", RUN, "--help"])
    text = capsys.readouterr().out
    for words in ("OUTPUT", "--new STR", "of each round. (default: b)", "--rounds INT", "--launch"):
        assert words in text
    with pytest.raises(SystemExit):
        main(["post-train", "--list"])
    assert capsys.readouterr().out.startswith("  post_training_8b  Llama 3.1 8B: six rounds of")


def test_a_folder_with_something_else_is_left_alone(folder, capsys):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("")
    said = refused(capsys, "out")
    assert said == "out: holds thesis.tex and no rounds (no steps.json); name another folder"
    Path("out/steps.json").write_text('{"steps": [{"step": 1}]}')
    assert refused(capsys, "out") == "out/steps.json: is no record of steps; name another OUTPUT"


def test_an_output_that_is_not_there_in_the_end_is_an_error(folder, capsys):
    Path("measure.py").write_text("")
    said = refused(capsys, "out")
    assert said.startswith("round-1/measure: ended well and has not written out/round-1/numbers/re")
    Path("measure.py").write_text("import sys; open(sys.argv[1], 'w').write('{\"tasks\": 3}')")
    said = refused(capsys, "out")
    assert said.startswith("out/round-1/numbers/results.json: is not what evaluate or refusals w")
