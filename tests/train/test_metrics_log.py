"""The log of a run: strict JSON, no step twice after a crash, one writer, and what it shows."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train.terminal
from llama_jax.errors import InputError
from train.metrics_file import encode, number, plain, read_metrics
from train.metrics_log import MetricsLog
from train.terminal import LineTerminal, LiveTerminal, TimeLeft, clock_text

ROOT = Path(__file__).parents[2]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars_of(folder):
    """(step, tag) -> value of all TensorBoard files, superseded ones left out as TensorBoard
    does."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                found = {key: value for key, value in found.items() if key[0] < event.step}
            for value in event.summary.value:
                found[event.step, value.tag] = value.simple_value
    return found


def test_a_line_holds_step_kind_time_stage_and_values(tmp_path, capsys):
    with MetricsLog(tmp_path / "run") as log:
        log.write(0, "event", {"started": "from random weights"})
        log.begin_stage("pretrain", first_step=0, num_steps=10)
        log.write(1, "train", {"loss": jnp.float32(2.5), "tokens": np.int64(7), "skipped": 0})
        log.write(1, "evaluation", {"web": 3.0})
    event, step, evaluation = lines_of(tmp_path / "run")
    assert event["started"] == "from random weights" and "stage" not in event
    assert abs(event.pop("time") - step.pop("time")) < 60
    assert step == {
        "step": 1, "kind": "train", "stage": "pretrain", "loss": 2.5, "tokens": 7, "skipped": 0
    }  # fmt: skip
    assert isinstance(step["tokens"], int)
    assert evaluation["web"] == 3.0 and evaluation["stage"] == "pretrain"
    assert scalars_of(tmp_path / "run") == {
        (1, "train/loss"): 2.5,
        (1, "train/tokens"): 7.0,
        (1, "train/skipped"): 0.0,
        (1, "evaluation/web"): 3.0,
    }
    shown = capsys.readouterr().err
    assert "pretrain step 1/10  loss 2.5000" in shown and "web 3.0000" in shown


@given(value=st.floats(width=32), text=st.text())
def test_any_number_and_text_is_strict_json_and_comes_back(value, text):
    def refuse(constant):
        raise AssertionError(constant)

    line = encode(3, "train", 1.0, {"number": plain(np.float32(value)), "text": plain(text)})
    assert line.count("\n") == 1 and len(line.splitlines()) == 1
    record = json.loads(line, parse_constant=refuse)
    np.testing.assert_equal(number(record["number"]), value)
    assert record["text"] == text


def test_a_value_that_is_not_finite_is_text_and_tensorboard_shows_it(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": jnp.nan, "gradient_norm": -jnp.inf})
    (line,) = lines_of(tmp_path)
    assert (line["loss"], line["gradient_norm"]) == ("nan", "-inf")
    assert np.isnan(scalars_of(tmp_path)[1, "train/loss"])


@pytest.mark.parametrize(
    "kind, values, message", [("trian", {}, "kind 'trian'"), ("train", {"step": 1}, "'step' is a")]
)
def test_a_line_that_would_mislead_is_a_mistake(tmp_path, kind, values, message):
    with MetricsLog(tmp_path) as log, pytest.raises(ValueError, match=message):
        log.write(1, kind, values)
    assert lines_of(tmp_path) == []


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path, capsys):
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, "train", {"loss": 10.0 + step})
            log.write(step, "evaluation", {"web": 20.0 + step})
    with MetricsLog(tmp_path, resume_step=3) as log:
        for step in range(4, 7):
            log.write(step, "train", {"loss": 100.0 + step})
    kept = [(line["step"], line.get("loss")) for line in lines_of(tmp_path) if "loss" in line]
    assert kept == [(1, 11), (2, 12), (3, 13), (4, 104), (5, 105), (6, 106)]
    scalars = scalars_of(tmp_path)
    assert scalars[3, "train/loss"] == 13 and scalars[4, "train/loss"] == 104
    assert (3, "evaluation/web") in scalars and (4, "evaluation/web") not in scalars
    said = (
        f"dropped 4 lines of {tmp_path}/metrics.jsonl, of steps after the last checkpoint: those "
    )
    assert f"{said}steps are done again" in capsys.readouterr().err.splitlines()


def test_a_run_without_a_checkpoint_begins_anew(tmp_path, capsys):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
    with MetricsLog(tmp_path) as log:
        assert log.num_dropped == 1
        said = f"dropped 1 line of {tmp_path}/metrics.jsonl: that run had saved nothing, and "
        assert f"{said}begins anew" in capsys.readouterr().err.splitlines()
        log.write(1, "train", {"loss": 2.0})
    assert [line["loss"] for line in lines_of(tmp_path)] == [2.0]
    assert scalars_of(tmp_path) == {(1, "train/loss"): 2.0}


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_half_written_last_line_is_dropped(tmp_path, cut):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.write(step, "train", {"loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [line["step"] for line in read_metrics(path)] == [1]
    with MetricsLog(tmp_path, resume_step=2) as log:
        log.write(2, "train", {"loss": 5.0})
    assert [line["loss"] for line in lines_of(tmp_path)] == [1.0, 5.0]


@pytest.mark.parametrize(
    "damage", [b"{\n", b"[1]\n", b'{"step": 1}\n', b'{"step": "a", "kind": "train", "time": 1}\n']
)
def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_changed(tmp_path, damage):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + damage + path.read_bytes())
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
        MetricsLog(tmp_path, resume_step=1)
    assert path.read_bytes() == before


def test_a_killed_process_leaves_whole_lines(tmp_path):
    script = """
import sys
from train.metrics_log import MetricsLog
with MetricsLog(sys.argv[1]) as log:
    log.begin_stage("a", first_step=0, num_steps=10**9)
    step = 0
    while True:
        step += 1
        log.write(step, "train", {"loss": 1.0 / step})
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], env=environment, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "step 20/" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with MetricsLog(tmp_path, resume_step=15):
        pass
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 16))
    assert {step for step, _ in scalars_of(tmp_path)} == set(range(1, 16))


def test_a_full_disk_is_an_error_where_it_happens(tmp_path):
    script = """
import sys
from train.metrics_log import MetricsLog
with MetricsLog(sys.argv[1], quiet=True) as log:
    for step in range(1, 10000):
        log.write(step, "train", {"loss": 1.0})
"""
    command = f'ulimit -f 8; exec "{sys.executable}" -c "$0" "$1"'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-c", command, script, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1 and "File too large" in result.stderr.splitlines()[-1]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) > 10


def test_only_the_first_process_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with MetricsLog(tmp_path / "run") as log:
        log.begin_stage("a", first_step=0, num_steps=2)
        log.write(1, "train", {"loss": 1.0})
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_gets_a_live_line_unless_quiet(tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with MetricsLog(tmp_path, quiet=quiet) as log:
        assert isinstance(log._terminal, LineTerminal if quiet else LiveTerminal)
        log.begin_stage("pretrain", first_step=10, num_steps=10)
        log.write(15, "train", {"loss": 2.0, "tokens_per_second": 1234.5, "skipped": 1})
        log.write(15, "evaluation", {"web": 1.5})
    shown = screen.getvalue()
    assert ("\x1b[" in shown) is not quiet
    for text in ("pretrain", "15/20", "loss 2.0000", "1,234 tokens/s", "skipped", "web 1.5000"):
        assert text in shown


def test_time_left_is_that_of_the_latest_pace(monkeypatch):
    monkeypatch.setattr(train.terminal, "_WINDOW", 3)
    seconds = iter([0.0, 100.0, 110.0, 120.0])
    left = TimeLeft(lambda: next(seconds))
    assert left.at(0, 10) is None
    assert left.at(1, 10) == pytest.approx(900.0)
    left.at(2, 10)
    assert left.at(3, 10) == pytest.approx(70.0)
    assert clock_text(3723.4) == "1:02:03"
