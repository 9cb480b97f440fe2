"""`llama-jax select`: what it writes, from what, and what it refuses."""

import hashlib
import json
import subprocess
import sys

import pytest

from llama_jax.__main__ import main
from llama_jax.batch_files import answer_row
from tests.train.selection.job_files import (
    answer,
    manifest,
    openai_answer,
    question,
    read,
    scores,
    sha256_of,
    write,
)  # fmt: skip

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]

QUESTIONS = [
    question("a", "2 + 3 = ?", metadata={"category": "sums"}, n=4, temperature=0.7),
    question("lost", "what failed"),
    question("b", "2 - 3 = ?", metadata={"category": "sums"}),
    question("again", " 2 +\n3 = ?", metadata={"category": "sums"}),
    question("tool", "add", tools=TOOLS, metadata={"category": "tools"}),
    question("cut", "long"),
    question("tie", "tie"),
]
ANSWERS = [
    answer("a", "6", "5", ("5 and so", "length"), "  5"),
    answer("b", "0", "-1", "1"),
    answer("again", "5", "4"),
    openai_answer("tool", {"tool_calls": [CALL]}, {"content": "no"}),
    answer("cut", ("no end", "length"), ""),
    answer("tie", "one", "two", "three"),
]
SCORES = [
    *scores("a", 0.0, 3.0, 9.0, 2.5, model="rm"),
    *scores("b", -1.0, 0.5, -1.5),
    *scores("again", 1.0, 0.0),
    *scores("tool", 2.0, 1.0),
    *scores("tie", 1.0, 1.0, 0.25),
]


class SelectJob:
    """Files in a folder, and the command over them."""

    def __init__(self, folder):
        self.folder = folder
        self.questions = write(folder / "questions.jsonl", QUESTIONS)
        self.answers = write(folder / "answers.jsonl", ANSWERS)
        self.scores = write(folder / "scores.jsonl", SCORES)
        self.sft, self.pairs = folder / "sft.jsonl", folder / "pairs.jsonl"

    def run(self, *options, model=("--model", "tiny"), overwrite=True):
        with pytest.raises(SystemExit) as stop:
            main(
                ["select", str(self.answers), "--questions", str(self.questions), "--scores",
                 str(self.scores), "--licence", "CC0", "--sft", str(self.sft), "--preferences",
                 str(self.pairs), "--minimum-gap", "1", *model, *options,
                 *(["--overwrite"] if overwrite else [])]
            )  # fmt: skip
        return stop.value.code


@pytest.fixture
def job(tmp_path):
    return SelectJob(tmp_path)


def by_id(rows):
    return {row["provenance"]["custom_id"]: row for row in rows}


def test_the_best_whole_answer_becomes_an_sft_row(job, capsys):
    assert not job.run()
    rows = by_id(read(job.sft))
    assert list(rows) == ["a", "b", "tool", "tie"]
    assert rows["a"]["messages"] == [
        {"role": "user", "content": "2 + 3 = ?"}, {"role": "assistant", "content": "5"},
    ]  # fmt: skip
    assert rows["a"]["provenance"] == {
        "model": "tiny", "sampling": {"n": 4, "temperature": 0.7}, "score_model": "rm",
        "licence": "CC0", "answers": "answers.jsonl", "custom_id": "a", "category": "sums",
        "sample": 1, "score": 3.0,
    }  # fmt: skip
    assert rows["tool"]["tools"] == TOOLS
    assert rows["tool"]["messages"][-1]["tool_calls"] == [CALL]
    assert rows["tie"]["messages"][-1]["content"] == "one"  # of equal scores the first
    out = capsys.readouterr().out
    for line in (
        "  left out 2: cut off at its limit",
        "  left out 1: said before to this prompt",
        f"{job.sft}: 4 rows of SFT",
        "          2  sums",
        "  left out 1: no answer: the row has failed",
        "  left out 1: a prompt that came before",
        "  left out 1: no answer that is whole",
    ):
        assert line in out.splitlines(), out
    assert "14 scored answers" in out and "####" in out


def test_a_pair_is_the_best_and_the_worst_by_the_gap(job):
    assert not job.run()
    rows = by_id(read(job.pairs))
    # The worst of `tie` is only 0.75 worse.
    assert {name: (row["chosen"]["content"], row["rejected"]["content"])
            for name, row in rows.items()} == {
        "a": ("5", "6"), "b": ("-1", "1"), "tool": ("", "no"),
    }  # fmt: skip
    assert rows["a"]["messages"] == QUESTIONS[0]["messages"]
    assert rows["a"]["category"] == "sums" and rows["tool"]["tools"] == TOOLS
    provenance = rows["b"]["provenance"]
    assert provenance["chosen"] == {"sample": 1, "score": 0.5}
    assert provenance["rejected"] == {"sample": 2, "score": -1.5}


def test_a_drawn_rejection_depends_on_the_seed_and_the_row_alone(job):
    drawn = set()
    for seed in range(8):
        assert not job.run("--rejected", "drawn", "--seed", str(seed))
        drawn.add(by_id(read(job.pairs))["b"]["rejected"]["content"])
    assert drawn == {"0", "1"}
    # Without the rows before it the same one is drawn.
    write(job.questions, QUESTIONS[2:])
    write(job.answers, ANSWERS[1:])
    write(job.scores, SCORES[4:])
    assert not job.run("--rejected", "drawn", "--seed", "7")
    assert by_id(read(job.pairs))["b"]["rejected"]["content"] in drawn


def test_exact_duplicates_tell_spaces_apart(job):
    assert not job.run("--duplicates", "exact")
    assert "again" in by_id(read(job.sft))


def test_a_minimum_score_leaves_questions_out(job):
    assert not job.run("--minimum-score", "1")
    assert list(by_id(read(job.sft))) == ["a", "tool", "tie"]


def mark(job, model):
    """One question with a wrong answer and a right one, one with wrong answers alone."""
    marks = {"model": model}
    write(job.questions, [question("a"), question("b")])
    write(job.answers, [answer("a", "no", "yes"), answer("b", "no", "neither")])
    write(job.scores, [*scores("a", 0, 1, **marks), *scores("b", 0, 0.0, **marks)])


@pytest.mark.parametrize("model", ["exact", "reasoning-gym chain_sum"])
def test_what_a_verifier_calls_wrong_is_never_learnt(job, capsys, model):
    mark(job, model)
    assert not job.run()
    assert list(by_id(read(job.sft))) == list(by_id(read(job.pairs))) == ["a"]
    assert "left out 1: no answer that its verifier calls right" in capsys.readouterr().out
    assert not job.run("--minimum-score", "0")  # unless that is said
    assert list(by_id(read(job.sft))) == ["a", "b"]


def test_marks_of_somebody_else_need_a_minimum_score(job, capsys):
    mark(job, "a colleague")
    assert job.run() == 2
    assert "all scores are 0 or 1" in capsys.readouterr().err and not job.sft.exists()
    assert not job.run("--minimum-score", "1")
    assert list(by_id(read(job.sft))) == ["a"]


def test_what_could_not_be_scored_is_in_no_row(job, capsys):
    rows = [dict(row) for row in SCORES]
    del rows[1]["score"]
    rows[1]["error"] = "messages: 9000 tokens with the answer, and the model reads 512"
    write(job.scores, rows)
    assert not job.run()
    # The second answer to `a` was the best; the fourth, which says the same, has a score.
    assert by_id(read(job.sft))["a"]["provenance"]["sample"] == 3
    assert "left out 1: could not be scored" in capsys.readouterr().out


def test_an_output_that_is_there_is_not_replaced_unasked(job, capsys):
    job.pairs.write_text("before")
    assert job.run(overwrite=False) == 2
    assert f"{job.pairs}: exists; name another file" in capsys.readouterr().err
    assert job.pairs.read_text() == "before" and not job.sft.exists()


def test_quotas_keep_any_row_as_likely_as_another(job):
    count = 40
    write(job.questions, [question(f"q{i}", metadata={"category": "c"}) for i in range(count)])
    write(job.answers, [answer(f"q{i}", "good", "bad") for i in range(count)])
    write(job.scores, [row for i in range(count) for row in scores(f"q{i}", 2.0, 0.0)])
    kept = []
    for seed in range(20):
        assert not job.run("--quota", "c=10", "--seed", str(seed))
        rows = list(by_id(read(job.sft)))
        assert len(rows) == 10 == len(read(job.pairs))
        assert rows == sorted(rows, key=lambda name: int(name[1:]))
        kept.append(set(rows))
    times = [sum(f"q{i}" in some for some in kept) for i in range(count)]
    # Of 20 draws each row is in 5 on average; none in all, few in none.
    assert len(set(map(frozenset, kept))) > 1 and max(times) < 15 and times.count(0) < 5
    assert not job.run("--quota", "*=0")
    assert read(job.sft) == []


def test_a_quota_may_be_of_a_category_of_which_nothing_was_good_enough(job):
    assert not job.run("--quota", "sums=1", "--minimum-score", "1000")
    assert read(job.sft) == []


def test_the_manifest_says_who_answered_and_which_questions(job):
    digest = hashlib.sha256(job.questions.read_bytes()).hexdigest()
    beside = job.folder / "answers.jsonl.manifest.json"
    beside.write_text(json.dumps(manifest(digest)))
    assert not job.run(model=())
    provenance = read(job.sft)[0]["provenance"]
    assert provenance["model"] == "models/tiny" and provenance["seed"] == 5
    assert provenance["model_sha256"] == "f" * 64


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"input_sha256": "0" * 64}, "questions.jsonl: has SHA-256"),
        ({"finished": None}, "the job is not finished"),
        ({"options": []}, "is no manifest of a batch job"),
    ],
)
def test_another_jobs_questions_are_refused(job, capsys, fields, message):
    digest = hashlib.sha256(job.questions.read_bytes()).hexdigest()
    beside = job.folder / "answers.jsonl.manifest.json"
    beside.write_text(json.dumps(manifest(digest) | fields))
    assert job.run() == 2
    assert message in capsys.readouterr().err


def with_score(place, **fields):
    rows = [dict(row) for row in SCORES]
    rows[place].update(fields)
    return rows


@pytest.mark.parametrize(
    "rows, message",
    [
        (SCORES[:1] + SCORES[2:], "has no score of sample 1 of"),
        (SCORES[4:], "line 1: is of 'b', where"),
        (SCORES[:-3], "scores.jsonl: ends before"),
        ([*SCORES, *scores("z", 1.0)], "custom_id 'z' is not in"),
        ([*SCORES, *scores("a", 1.0)], "custom_id 'a' is not in"),
        ([*SCORES[:4], *SCORES[3:]], "sample 3 of 'a': was scored in line 4 already"),
        (with_score(0, sample=4), "sample 4 of 'a': there are 4 samples"),
        (with_score(0, score=float("nan")), "line 1: score: must be a finite number, not nan"),
        (with_score(0, score=float("inf")), "score: must be a finite number"),
        (with_score(0, score="3"), "score: must be a finite number, not '3'"),
        (with_score(0, error="x"), "line 1: error: stands beside a score"),
        (with_score(0, score=True), "score: must be a finite number, not True"),
        (with_score(0, sample=-1), "sample: must be a whole number from 0"),
        (with_score(1, reward=1), "line 2: reward: unknown field; known: custom_id, sample"),
        (with_score(1, answer_sha256=sha256_of("6")), "another answer was scored"),
        ([{"sample": 0, "score": 1}], "line 1: custom_id: must be a text"),
        (["{"], "line 1: not valid JSON"),
        (['{"custom_id": "a", "custom_id": "b"}'], "a key is given twice"),
    ],
)  # fmt: skip
def test_hostile_scores_are_refused_and_nothing_is_written(job, capsys, rows, message):
    write(job.scores, rows)
    assert job.run() == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out
    names = {path.name for path in job.folder.iterdir()}
    assert names == {"questions.jsonl", "answers.jsonl", "scores.jsonl"}


@pytest.mark.parametrize(
    "rows, message",
    [
        ([*ANSWERS, ANSWERS[0]], "line 7: custom_id: 'a' comes twice"),
        ([*ANSWERS, answer("z", "?")], "custom_id 'z' is not in"),
        (
            [*ANSWERS, '{"custom_id": "\\ud800", "text": "", "finish_reason": "stop"}'],
            "custom_id '\\ud800' is not in",
        ),
        ([ANSWERS[1], ANSWERS[0], *ANSWERS[2:]], "line 1: is of 'a', where"),
        ([ANSWERS[0] | {"reward": 1}], "line 1: reward: unknown field"),
        (
            [answer("a", "x", "y") | {"choices": [{"text": "x", "finish_reason": "stop", "a": 1}]}],
            "choices[0].a: unknown field",
        ),
        ([openai_answer("a", {"content": 3})], "choices[0].message: has no text"),
        ([ANSWERS[1] | {"choices": []}], "choices: must be a list that is not empty"),
        ([{"custom_id": "a", "text": "x"}], "finish_reason: must be text, not None"),
        ([{"custom_id": "a", "finish_reason": "stop"}], "has no text"),
        ([{"custom_id": "a", "response": None, "error": {"code": "x"}}], "the row has failed"),
        (["[]"], "must be a JSON object"),
    ],
)
def test_hostile_answers_are_refused(job, capsys, rows, message):
    write(job.answers, rows)
    assert job.run() == 2
    assert message in capsys.readouterr().err
    assert not job.sft.exists()


@pytest.mark.parametrize(
    "row, message",
    [
        ({"messages": [{"role": "assistant", "content": "x"}]}, "must end with what a user"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "role: 'usr' is unknown"),
        ({"prompt": "2 + 3 ="}, "may have been a text to be continued"),
        (question("a", metadata={"category": 3}), "metadata.category: must be a text"),
    ],
)
def test_questions_that_are_no_dialogs_are_refused(job, capsys, row, message):
    write(job.questions, [{"custom_id": "a"} | row, *QUESTIONS[1:]])
    assert job.run() == 2
    err = capsys.readouterr().err
    assert "questions.jsonl: line 1: " in err and message in err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--quota", "sums"], "--quota sums: must be CATEGORY=ROWS"),
        (["--quota", "sums=-1"], "must be CATEGORY=ROWS"),
        (["--quota", "sums=1", "--quota", "sums=2"], "--quota sums: is given twice"),
        (["--quota", "sum=1"], "no question has this category; there are: sums, tools"),
        (["--minimum-gap", "0"], "--minimum-gap must be above 0"),
        (["--minimum-score", "nan"], "--minimum-score must be a finite number"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--licence", " "], "--licence: is empty"),
        (["--rejected", "best"], "--rejected"),
    ],
)
def test_bad_options_end_in_one_line(job, capsys, options, message):
    assert job.run(*options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not job.sft.exists() and not job.pairs.exists()


def test_an_unsaid_model_and_clashing_files_are_refused(job, capsys):
    assert job.run(model=()) == 2
    assert "does not say who answered" in capsys.readouterr().err
    assert job.run("--sft", str(job.pairs)) == 2
    assert "is named for two outputs" in capsys.readouterr().err
    assert job.run("--sft", str(job.scores)) == 2
    assert "is an input" in capsys.readouterr().err


def test_an_old_output_is_replaced_only_by_a_whole_one(job, monkeypatch):
    job.sft.write_text("before")
    parse, calls = answer_row.parse_answer_row, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return parse(*arguments)

    monkeypatch.setattr(answer_row, "parse_answer_row", fails)
    with pytest.raises(KeyboardInterrupt):
        from train.selection.select_command import select

        select(
            job.answers, questions=job.questions, scores=job.scores, licence="CC0", sft=job.sft,
            model="tiny", overwrite=True, quiet=True,
        )  # fmt: skip
    assert job.sft.read_text() == "before"
    assert not [path for path in job.folder.iterdir() if path.name.startswith(".")]


def test_no_device_is_needed():
    """Selecting goes on hosts that have none, and beside a job that holds them all."""
    code = (
        "import sys, train.selection.select_command, train.selection.verify_command;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "flax", "reasoning_gym"} & set(run.stdout.split())
