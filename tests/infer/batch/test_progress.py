"""What is shown while rows are answered."""

import pytest

from infer.batch import progress as progress_module
from infer.batch.part_file import FinishedRow
from infer.batch.progress import BatchProgress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_have_rows_rate_and_time_left(clock, capsys):
    shares = [(10, 0.2)]
    with BatchProgress(1000, quiet=True) as progress:
        progress.show(lambda: shares[-1])
        clock[0] += 20
        progress.count(300)
        shares.append((40, 0.2))
        progress.show(lambda: shares[-1])
        clock[0] += 5  # too soon for another line
        progress.show(lambda: shares[-1])
        clock[0] += 35
        progress.count(300)
        shares.append((400, 0.4))
        progress.finished([FinishedRow(0, "output", b"", 5, 7), FinishedRow(1, "error", b"")])
        progress.show(lambda: shares[-1])
    # A fifth of the work took a minute; three fifths are left, whatever the number of rows.
    assert capsys.readouterr().err.splitlines() == [
        "40 of 1,000 rows, 15 tokens/s",
        "400 of 1,000 rows, 10 tokens/s, 0:03:00 left",
    ]
    assert (progress.work.rows, progress.work.failed, progress.work.new_tokens) == (2, 1, 7)


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with BatchProgress(1000, quiet=False) as progress:
        progress.show(lambda: (0, 0.0))
        clock[0] += 10
        progress.count(500)
        progress.show(lambda: (250, 0.25))
        progress.failed(7, "bad [bold]words[/]")
        progress.failed(8, "more")
    shown = capsys.readouterr().err
    assert "250/1000" in shown and "50 tokens/s" in shown and "0:00:30 left" in shown
    assert "line 7 failed: bad [bold]words[/]" in shown and "line 8" not in shown
