"""The report: it draws what the run measured, cuts off no text, and names what is damaged."""

import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.__main__ import main
from llama_jax.errors import InputError
from train.metrics_log import MetricsLog
from train.report import report
from train.report_figures import FIGURES
from train.report_page import flattened, page, summary
from train.run_history import read_run, smoothed

STAGES = (("pretrain", 0, 12), ("long_context_131072", 12, 6), ("anneal", 18, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny <b>"
    with MetricsLog(folder) as log:
        for name, first_step, num_steps in STAGES:
            log.begin_stage(name, first_step=first_step, num_steps=num_steps)
            for step in range(first_step + 1, first_step + num_steps + 1):
                log.write(step, "train", values_of(step, step - first_step))
                if step % 5 == 0:
                    held_out = {"web": 20.0 - step, "code": 10.0, "code/accuracy": 0.75}
                    log.write(step, "evaluation", held_out)
    (folder / "config.json").write_text(json.dumps({"seed": 3, "output": "<script>"}))
    return folder


def values_of(step, stage_step):
    return {
        "loss": np.nan if step == 7 else 100.0 / step,
        "learning_rate": 3e-4 / step,
        "gradient_norm": np.inf if step == 7 else 1.0 + step % 3,
        "skipped": int(step in (7, 9)),
        "total_tokens": 1000 * step,
        "tokens_per_second": 5000.0,
        "tokens_per_second_per_device": 1250.0,
        "mfu_causal": 0.4,
        "mfu_full": 0.5,
        "step_seconds_p50": 0.2,
        "step_seconds_p90": 0.3,
        "step_seconds_p99": 0.4,
        "data_wait_share": 0.01,
        "compile_seconds": 9.0 if stage_step == 1 else 0.0,
        "checkpoint_seconds": 0.5,
        "evaluation_seconds": 0.0,
        "accuracy": 0.5 + step / 100,
        "reward_chosen": 0.1 * step,
        "reward_rejected": -0.1 * step,
        "margin": 0.2 * step,
        "pairs": 16,
        "rows/web": 3 * stage_step,
        "rows/code": stage_step,
    }


def test_a_run_is_read_as_it_was_written(run):
    history = read_run(run, name="x")
    assert history.stages == (("pretrain", 0), ("long_context_131072", 12), ("anneal", 18))
    assert np.isnan(history.train["loss"].values[6]) and np.isinf(
        history.train["gradient_norm"].values[6]
    )
    # Counted anew in each stage, and over the run here.
    np.testing.assert_array_equal(history.train["rows/web"].values, 3 * np.arange(1, 21))
    np.testing.assert_array_equal(history.evaluation["web"].steps, [5, 10, 15, 20])
    np.testing.assert_allclose(history.x_values(np.array([0, 0.5, 20]), "tokens"), [0, 500, 20000])


def test_the_summary_says_what_a_run_came_to(run):
    rows = summary(read_run(run, name="x"))
    assert rows["steps"] == "20" and rows["tokens"] == "20,000" and rows["skipped steps"] == "2"
    assert rows["stages"] == "pretrain, long_context_131072, anneal"
    assert rows["final training loss"].startswith("5.0000 nats a pair")
    assert rows["final loss, web"] == "0.0000 (lowest 0.0000)"
    assert rows["final code/accuracy"] == "0.7500" and "final loss, code/accuracy" not in rows
    assert rows["tokens/s"] == "5,000 (median)" and rows["MFU, causal"] == "40.0% (median)"
    assert rows["compile time"] == "27.0 s" and rows["checkpoint time"] == "10.0 s"


@pytest.mark.parametrize("axis, num_runs", [("tokens", 1), ("steps", 2)])
@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_cuts_off_no_text_and_labels_its_axes(run, name, axis, num_runs):
    histories = [read_run(run, name=f"run $a_b_c$ {index}") for index in range(num_runs)]
    figure = FIGURES[name][1](histories, axis)
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.bbox.width, figure.bbox.height
    texts = [text for panel in figure.axes for text in panel.texts] + [figure._suptitle]
    for panel in figure.axes:
        assert panel.get_ylabel() and panel.lines
        texts += [panel.xaxis.label, panel.yaxis.label]
        if legend := panel.get_legend():
            texts += legend.get_texts()
    assert figure.axes[-1].get_xlabel().startswith(axis)
    assert figure.get_suptitle() == ", ".join(history.name for history in histories)
    assert {"pretrain", "anneal"} <= {text.get_text() for text in texts}
    for text in texts:
        if not text.get_text():
            continue
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text


def test_stage_names_do_not_run_into_one_another(run):
    figure = FIGURES["loss"][1]([read_run(run, name="x")], "steps")
    figure.savefig(io.BytesIO(), format="png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_skipped_steps_are_marked_also_where_the_norm_is_not_finite(run):
    figure = FIGURES["gradient_norm"][1]([read_run(run, name="x")], "steps")
    crosses = [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses[0], [[9, 1.0]])
    assert crosses[1][0, 0] == 7 and 0.9 < crosses[1][0, 1] < 1.0  # a share of the height


def test_a_run_without_a_finite_loss_has_a_picture_that_says_so(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            norm = {"gradient_norm": np.inf, "skipped": 1}
            log.write(step, "train", {"loss": np.nan, "learning_rate": 0.1, **norm})
    history = read_run(tmp_path, name="lost")
    for name in ("loss", "gradient_norm"):
        figure = FIGURES[name][1]([history], "steps")
        figure.savefig(io.BytesIO(), format="png")
        (panel,) = figure.axes
        assert [text.get_text() for text in panel.texts] == ["no finite values"]
        assert panel.get_xlim() == pytest.approx((0, 3.15)) and not len(panel.get_yticks())
    assert not FIGURES["learning_rate"][1]([history], "steps").axes[0].texts


def test_a_run_without_known_peak_has_no_mfu_panel(run, tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0, "tokens_per_second_per_device": 5.0})
    histories = [read_run(tmp_path, name="x")]
    assert len(FIGURES["throughput"][1](histories, "steps").axes) == 1
    assert FIGURES["sources"][1](histories, "steps") is None


def test_the_page_needs_no_other_file_and_runs_no_script(run, tmp_path, capsys):
    report((run,), output=tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == len(FIGURES) == html.count("<img")
    for name, picture in zip(FIGURES, pictures, strict=True):
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == base64.b64decode(picture)
    assert "<script" not in html and "<b>" not in html and "://" not in html
    assert "&lt;script&gt;" in html and "tiny &lt;b&gt;" in html
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        *(f"{name}.png" for name in FIGURES),
    }
    assert f"{len(FIGURES)} pictures" in capsys.readouterr().out


def test_what_differs_between_runs_is_marked(run):
    first, second = (read_run(run, name=name) for name in "ab")
    second.config["seed"] = 4
    html = page([first, second], [])
    assert '<tr class="differs"><th>seed</th><td>3</td><td>4</td></tr>' in html
    assert html.count('class="differs"') == 1
    assert flattened({"a": [{"b": 1}, 2], "c": {}}) == {"a.0.b": "1", "a.1": "2", "c": "{}"}


@given(
    values=st.lists(st.floats(-1e3, 1e3) | st.just(np.nan) | st.just(np.inf), max_size=40),
    span=st.integers(1, 10),
)
def test_smoothing_is_the_mean_around_a_line(values, span):
    result = smoothed(np.array(values, float), span)
    for index, mean in enumerate(result):
        reach = min(span // 2, index)
        around = np.array(values[index - reach : index + reach + 1])
        expected = around[np.isfinite(around)].mean() if np.isfinite(around).any() else np.nan
        # Differences of sums up to 40 x 1e3, of 2^-53 relative precision.
        np.testing.assert_allclose(mean, expected, atol=1e-9)


DAMAGED = {
    "no folder": (None, "there is no such folder"),
    "no file": ({}, r"metrics\.jsonl: there is no such file"),
    "empty": ({"metrics.jsonl": ""}, r"metrics\.jsonl: has no metrics yet"),
    "half a line": ({"metrics.jsonl": '{"step": 1, "ki'}, r"metrics\.jsonl: has no metrics yet"),
    "no training": (
        {"metrics.jsonl": '{"step": 0, "kind": "event", "time": 1}\n'},
        r"metrics\.jsonl: has no training step yet",
    ),
    "damaged line": (
        {"metrics.jsonl": '{"step": 1, "kind": "train", "time": 1}\n{"step"\n{}\n'},
        r"metrics\.jsonl, line 2: damaged",
    ),
    "damaged config": (
        {"metrics.jsonl": '{"step": 1, "kind": "train", "time": 1}\n', "config.json": "["},
        r"config\.json",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_damaged_is_named(tmp_path, damage):
    files, message = DAMAGED[damage]
    folder = tmp_path / "run"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        report((folder,))
    assert not (folder / "report").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name the folder of a run"),
        (["a", "b"], "--output FOLDER"),
        (["{}", "--axis", "tokens"], "give --axis steps"),
        (["{}", "--output", __file__], "test_report.py: is a file; name a folder"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, message):
    with MetricsLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
    with pytest.raises(SystemExit) as stop:
        main(["report", *(argument.format(tmp_path) for argument in arguments)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and message in error
