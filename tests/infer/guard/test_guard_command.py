"""`llama-jax guard` with the real engine: a tiny guard that knows one bad letter, and a random one.

The first, made in conftest.py, calls a prompt unsafe that holds a `~`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_jax.__main__ import main

pytestmark = pytest.mark.usefixtures("quick_compilation")

CALL = {"type": "function", "function": {"name": "run", "arguments": {"code": "~"}}}
SAFE, UNSAFE = ("safe", []), ("unsafe", ["S1"])
GOOD = [
    ({"prompt": "Hi"}, SAFE),
    ({"prompt": "H~i"}, UNSAFE),
    ({"prompt": "Hi", "answer": "~"}, UNSAFE),
    ({"prompt": "Hi", "answer": {"role": "assistant", "content": "Hello"}}, SAFE),
    (
        {
            "custom_id": "dialog",
            "messages": [
                {"role": "system", "content": "~ is the operator's own"},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
            ],
            "provenance": {"from": "~"},
        },
        SAFE,
    ),
    (
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "answer": {"role": "assistant", "content": None, "tool_calls": [CALL]},
        },
        UNSAFE,
    ),
    (
        {
            "custom_id": "question",
            "messages": [{"role": "user", "content": "~"}],
            "n": 4,
            "temperature": 0.7,
            "metadata": {"harmful": True},
        },
        UNSAFE,
    ),
    (
        {
            "custom_id": "openai",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "~"}], "max_tokens": 1, "n": 3},
        },
        UNSAFE,
    ),
]
BAD = [
    ("{", "not valid JSON"),
    ({"prompt": "Hi", "anwser": "~"}, "anwser: is no field of a row to be judged; known: custom"),
    ({"prompt": ["Hi"]}, "prompt: must be one text"),
    ({"messages": [{"role": "assistant", "content": "Hi"}]}, "the assistant speaks first"),
    ({"messages": [{"role": "user", "content": ""}]}, "the last user message is empty"),
    ({"prompt": "Hi", "answer": " "}, "the last agent message is empty"),
    ({"prompt": "Hi", "answer": 5}, "answer"),
    ({"prompt": "Hi", "answer": {"role": "user", "content": "x"}}, "answer.role: must be assist"),
    (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y"},
            ],
            "answer": "z",
        },
        "answer: the messages end with the assistant's",
    ),
    ({"prompt": "x" * 2000}, "tokens for the guard, which reads at most"),
    ({"custom_id": "dialog", "prompt": "again"}, "'dialog' is that of line 5"),
]


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["guard", *map(str, arguments)])
    return stop.value.code


@pytest.fixture(scope="module")
def job(guard_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    source = write(folder / "in.jsonl", [row for row, _ in [*GOOD, *BAD]])
    output = folder / "out.jsonl"
    options = ["--rows", "4", "--no-roofline"]
    return SimpleNamespace(
        source=source, output=output, errors=folder / "out.jsonl.errors.jsonl", options=options,
        code=run(guard_checkpoint, source, output, *options, "--quiet"),
    )  # fmt: skip


def test_dialogs_are_judged_and_bad_rows_say_why(job):
    assert job.code == 1
    verdicts = read(job.output)
    assert [(row["verdict"], row["categories"]) for row in verdicts] == [v for _, v in GOOD]
    assert [row["custom_id"] for row in verdicts][3:] == [
        "line-4",
        "dialog",
        "line-6",
        "question",
        "openai",
    ]
    assert all(
        row.keys() == {"custom_id", "verdict", "categories", "score", "usage"} for row in verdicts
    )
    assert all((row["score"] > 0.5) == (row["verdict"] == "unsafe") for row in verdicts)
    assert verdicts[0]["usage"]["completion_tokens"] == len("safe") + 1
    failed = read(job.errors)
    assert [row["line"] for row in failed] == list(range(len(GOOD) + 1, len(GOOD) + len(BAD) + 1))
    for row, (_, words) in zip(failed, BAD, strict=True):
        assert words in row["error"]["message"], row
        assert row.keys() == {"custom_id", "line", "error"}


def test_a_finished_job_says_what_came_of_it(job, guard_checkpoint, capsys):
    assert run(guard_checkpoint, job.source, job.output, *job.options) == 1
    err = capsys.readouterr().err
    assert "finished before; nothing is left to do" in err
    assert "unsafe: 5 of 8 (S1 5)" in err


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--form", "cookbook"], "it has --form huggingface, not cookbook"),
        (["--exclude-category", "S5"], "it has --exclude-category by default, not S5"),
        (["--descriptions"], "it has --descriptions False, not True"),
        (["--judged", "user"], "it has --judged last, not user"),
        (["--exclude-category", "S15"], "category 'S15': is unknown; did you mean S5"),
        (["--categories", "nowhere.json"], "nowhere.json: there is no such file"),
    ],
)
def test_other_questions_are_another_job(job, guard_checkpoint, capsys, changes, message):
    assert run(guard_checkpoint, job.source, job.output, *job.options, *changes) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_excluded_categories_and_the_judged_turn(guard_checkpoint, tmp_path, capsys):
    """S1 does not count when it is excluded, and what the agent says is not shown when it is the
    user who is judged."""
    rows = [{"prompt": "~"}, {"prompt": "Hi", "answer": "~"}]
    source = write(tmp_path / "in.jsonl", rows)
    options = ["--rows", "2", "--no-roofline", "--judged", "user", "--exclude-category", "S1"]
    assert run(guard_checkpoint, source, tmp_path / "out.jsonl", *options) == 0
    first, second = read(tmp_path / "out.jsonl")
    assert (first["verdict"], first["excluded"]) == ("safe", ["S1"])
    assert second["verdict"] == "safe" and "excluded" not in second
    assert "unsafe: 0 of 2\n" in capsys.readouterr().err


def test_a_model_that_is_no_guard_is_refused(chat_checkpoint, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [{"prompt": "Hi"}])
    assert run(chat_checkpoint, source, tmp_path / "out.jsonl") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{chat_checkpoint}: tokenizer: has no token <|begin_of_text|>" in last
    (tmp_path / "deberta").mkdir()
    (tmp_path / "deberta" / "config.json").write_text('{"model_type": "deberta-v2"}')
    assert run(tmp_path / "deberta", source, tmp_path / "other.jsonl") == 2
    assert "use llama-jax prompt-guard" in capsys.readouterr().err.splitlines()[-1]


def test_a_random_guard_in_a_process_of_its_own_calls_nothing_safe(
    random_guard_checkpoint, tmp_path
):
    source = write(tmp_path / "in.jsonl", [{"prompt": "Hi"}, {"prompt": "Hi", "answer": "Ho"}])
    root = Path(__file__).parents[3]
    command = [
        sys.executable,
        "-m",
        "llama_jax",
        "guard",
        str(random_guard_checkpoint),
        str(source),
    ]
    done = subprocess.run(
        [*command, str(tmp_path / "out.jsonl"), "--rows", "2", "--no-roofline"],
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unsafe: 2 of 2" in done.stderr
    assert "no proper verdict, which counts as unsafe: 2" in done.stderr
    for row in read(tmp_path / "out.jsonl"):
        assert row["verdict"] == "unsafe" and row["categories"] == [] and row["problem"]
        assert 0 <= row["score"] <= 1
