"""The loop, with scripted answers: order, window, failures, names."""

import json

import pytest

from infer.batch.job import Job
from infer.batch.part_file import FinishedRow, PartWriter

from . import scripted_job
from .scripted_job import SLOTS, ScriptedAnswering, answer_to, run_scripted


def write(path, rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def openai(custom_id, prompt, **fields):
    body = {"prompt": prompt, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body}


def test_every_row_comes_out_as_it_went_in(tmp_path):
    """Both kinds, several samples, several prompts, in the order of the input."""
    rows = [
        {"prompt": "3", "custom_id": "plain"},
        openai("one", "2"),
        {"prompt": "1", "n": 2},
        openai("two", ["2", "4"], n=2),
    ]
    job, run = run_scripted(write(tmp_path / "in.jsonl", rows), tmp_path / "OUT.jsonl")
    assert run.exit_code is None and (run.work.rows, run.work.failed) == (4, 0)
    assert not job.errors.exists()
    plain, one, samples, two = read(job.output)
    assert plain == {
        "custom_id": "plain",
        "text": "".join(texts("plain", 3)),
        "finish_reason": "length",
        "usage": {"prompt_tokens": 2, "completion_tokens": 3},
    }
    assert one["custom_id"] == "one" and one["error"] is None
    assert one["id"].startswith("batch_req_")
    response = one["response"]
    assert response["status_code"] == 200 and response["request_id"].startswith("req_")
    assert response["body"]["created"] == 1000
    assert response["body"]["choices"][0]["text"] == "".join(texts("one", 2))
    assert [choice["text"] for choice in samples["choices"]] == [
        texts("line-3", 1, index)[0] for index in range(2)
    ]
    assert len(two["response"]["body"]["choices"]) == 4
    assert job.manifest.finished == {
        "rows": 4, "failed": 0, "prompt_tokens": 10, "new_tokens": 3 + 2 + 2 + 12
    }  # fmt: skip
    assert run.work.new_tokens == 19 and run.work.prompt_tokens == 10


def texts(custom_id, prompt, index=0):
    row = {"prompt": str(prompt)}
    parsed = scripted_job.parse(
        scripted_job.BatchRow(1, custom_id, "/v1/completions", True, row)
    ).answers[0]
    return answer_to(parsed, index)


BAD = [
    "{",
    '"just a text"',
    json.dumps({"custom_id": "good", "prompt": "2"}),
    json.dumps(openai("hot", "1", temperature=-1)),
    json.dumps(openai("long", "101")),
    json.dumps(openai("long too", ["2", "101"])),
    json.dumps(openai("broken", "13")),
    json.dumps(openai("broken too", ["13", "50"])),
    json.dumps({"custom_id": "plain", "prompt": "101"}),
    json.dumps({"custom_id": "plain", "prompt": "1"}),
]


def test_rows_that_fail_say_why_and_the_others_go_on(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    good = [{"prompt": str(number)} for number in range(1, 6)]
    write(source, [*BAD, *good])
    with open(source, "ab") as file:
        file.write(b'{"prompt": "caf\xe9"}\n')
    answering = ScriptedAnswering()
    job, run = run_scripted(source, tmp_path / "OUT.jsonl", answering=answering)
    assert not answering.requests
    assert [row["custom_id"] for row in read(job.output)] == [
        "good", *(f"line-{line}" for line in range(11, 16))
    ]  # fmt: skip
    failed = read(job.errors)
    assert len(failed) == run.work.failed == job.manifest.finished["failed"] == 10
    told = {(row["line"], row["custom_id"]): row["error"]["message"] for row in failed}
    for (line, custom_id), words in {
        (1, "line-1"): "not valid JSON",
        (2, "line-2"): "must be a JSON object",
        (4, "hot"): "temperature: must be 0 or more",
        (5, "long"): "over the context",
        (6, "long too"): "over the context",
        (7, "broken"): "logits are not finite",
        (8, "broken too"): "logits are not finite",
        (9, "plain"): "over the context",
        (10, "plain"): "custom_id: 'plain' is that of line 9 already",
        (16, "line-16"): "not valid JSON",
    }.items():
        assert words in told[line, custom_id]
    hot = next(row for row in failed if row["custom_id"] == "hot")
    assert hot["response"]["status_code"] == 400
    assert hot["response"]["body"]["error"]["param"] == "temperature"
    broken = next(row for row in failed if row["custom_id"] == "broken")
    assert broken["response"]["status_code"] == 500
    assert broken["error"]["code"] == "server_error"
    # The first failure is told at once, since all may be of one kind.
    assert "failed: " in capsys.readouterr().err


def test_no_more_rows_are_held_than_the_window_has(tmp_path):
    answering = ScriptedAnswering()
    rows = [{"prompt": str(1 + number % 7)} for number in range(500)]
    source = write(tmp_path / "in.jsonl", rows)
    run_scripted(source, tmp_path / "OUT.jsonl", answering=answering)
    assert answering.most == 2 * SLOTS
    assert len(answering.added) == 500


def test_samples_count_in_the_window(tmp_path):
    answering = ScriptedAnswering()
    source = write(tmp_path / "in.jsonl", [{"prompt": "2", "n": 5} for _ in range(50)])
    run_scripted(source, tmp_path / "OUT.jsonl", answering=answering)
    assert answering.most == 2


def test_rows_come_longest_first(tmp_path):
    answering = ScriptedAnswering()
    rows = [{"prompt": str(n), "max_tokens": n} for n in (5, 90, 1, 30, 60)]
    source = write(tmp_path / "in.jsonl", rows)
    run_scripted(source, tmp_path / "OUT.jsonl", answering=answering)
    assert answering.added == [90, 60, 30, 5, 1]


def test_rows_that_are_kept_are_not_answered_again(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": str(n)} for n in range(1, 9)])
    output = tmp_path / "OUT.jsonl"
    parts = Job(output).parts
    answering = ScriptedAnswering()
    run_scripted(source, tmp_path / "whole.jsonl", answering=answering)

    class Stop(Exception):
        pass

    class Dies(ScriptedAnswering):
        def step(self):
            if self._next > 6:
                raise Stop
            return super().step()

    with pytest.raises(Stop):
        run_scripted(source, output, answering=Dies())
    kept = sum(len(path.read_bytes().splitlines()) for path in parts.glob("*.jsonl"))
    assert not output.exists()
    again = ScriptedAnswering()
    job, run = run_scripted(source, output, answering=again)
    assert len(again.added) == run.work.rows == 8 - kept
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert job.manifest.finished["new_tokens"] == sum(range(1, 9))
    job, run = run_scripted(source, output)
    assert run is None and job.manifest.finished["rows"] == 8


def test_rows_whose_part_is_lost_are_answered_again(tmp_path):
    """Someone cleaned up; blocks say that they are done, and the rows are gone."""
    source = write(tmp_path / "in.jsonl", [{"prompt": str(n)} for n in range(1, 9)])
    output = tmp_path / "OUT.jsonl"

    class Loses(ScriptedAnswering):
        has_lost = False

        def step(self):
            for path in Job(output).parts.glob("*.jsonl"):
                lines = path.read_bytes().splitlines(keepends=True)
                if len(lines) == 6 and not self.has_lost:
                    path.write_bytes(b"".join(lines[2:]))
                    self.has_lost = True
            return super().step()

    job, run = run_scripted(source, output, answering=Loses())
    assert run.work.rows == 10
    assert len(read(output)) == 8


def test_rows_answered_twice_are_written_once(tmp_path):
    """As when two hosts share a file system that only pretends to lock."""
    source = write(tmp_path / "in.jsonl", [{"prompt": str(n)} for n in range(1, 5)])
    run_scripted(source, tmp_path / "whole.jsonl")
    texts = (tmp_path / "whole.jsonl").read_bytes().splitlines()
    output = tmp_path / "OUT.jsonl"

    class Doubles(ScriptedAnswering):
        def step(self):
            if self._next == 4 and not list(Job(output).parts.glob("other*")):
                writer = PartWriter(Job(output).parts)
                writer.path = Job(output).parts / "other.jsonl"
                writer.append(
                    [FinishedRow(row, "output", texts[row], 2, row + 1) for row in range(4)]
                )
                writer.close()
            return super().step()

    job, _ = run_scripted(source, output, answering=Doubles())
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert job.manifest.finished["new_tokens"] == 1 + 2 + 3 + 4
