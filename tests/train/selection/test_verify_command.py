"""`llama-jax verify`: marks by exact answers and by reasoning-gym's scorers."""

import json

import pytest

from llama_jax.__main__ import main
from llama_jax.verifiers import ReasoningGymTask
from tests.train.selection.job_files import answer, question, read, sha256_of, write

TASK = ReasoningGymTask("chain_sum", 7, 3, {"max_terms": 2})


def exact(custom_id, expected, **fields):
    return question(custom_id, metadata={"verifier": "exact", "answer": expected, **fields})


def run(folder, questions, answers, *options):
    write(folder / "questions.jsonl", questions)
    write(folder / "answers.jsonl", answers)
    paths = [str(folder / name) for name in ("answers.jsonl", "scores.jsonl", "questions.jsonl")]
    with pytest.raises(SystemExit) as stop:
        main(["verify", paths[0], paths[1], "--questions", paths[2], *options])
    return stop.value.code


def test_each_sample_is_marked_by_what_its_question_says(tmp_path, capsys):
    right = TASK.question(1).answer
    questions = [
        exact("a", "Paris", category="cities", harmful=False),
        question("lost", metadata={"verifier": "exact", "answer": "x"}),
        question("sum", TASK.question(1).text, metadata=TASK.metadata(1)),
    ]
    answers = [
        answer("a", " paris\n", "Rome", "first <answer>Rome</answer>, no: <answer>Paris</answer>"),
        answer("sum", right, f"{right}9", f"<answer>{right}</answer>", ("", "length")),
    ]
    assert not run(tmp_path, questions, answers)
    rows = read(tmp_path / "scores.jsonl")
    marks = {(row["custom_id"], row["sample"]): row["score"] for row in rows}
    assert [marks["a", i] for i in range(3)] == [1, 0, 1]
    assert marks["sum", 0] == marks["sum", 2] == 1 and marks["sum", 1] < 1
    assert marks["sum", 3] == 0
    assert rows[1] == {
        "custom_id": "a", "sample": 1, "score": 0.0, "model": "exact",
        "answer_sha256": sha256_of("Rome"),
    }  # fmt: skip
    assert rows[-1]["model"] == "reasoning-gym chain_sum"
    out = capsys.readouterr().out
    assert "7 answers, 4 of them right" in out and "66.7% of 3  cities" in out
    assert "1 of 3 questions have no answer" in out


def test_its_scores_are_what_select_takes(tmp_path):
    questions = [exact("a", "1"), exact("b", "2"), exact("c", "3")]
    answers = [answer("a", "0", "1"), answer("b", "0", ("2", "length")), answer("c", "4", "3")]
    assert not run(tmp_path, questions, answers)
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("answers", "questions", "scores")}
    with pytest.raises(SystemExit) as stop:
        main(
            ["select", paths["answers"], "--questions", paths["questions"], "--scores",
             paths["scores"], "--licence", "CC0", "--model", "tiny", "--minimum-score", "1",
             "--minimum-gap", "0.5", "--sft", str(tmp_path / "sft.jsonl"), "--preferences",
             str(tmp_path / "pairs.jsonl")]
        )  # fmt: skip
    assert not stop.value.code
    assert [row["messages"][-1]["content"] for row in read(tmp_path / "sft.jsonl")] == ["1", "3"]
    pairs = read(tmp_path / "pairs.jsonl")
    assert [row["rejected"]["content"] for row in pairs] == ["0", "4"]
    assert pairs[0]["provenance"]["score_model"] == "exact"


@pytest.mark.parametrize(
    "metadata, message",
    [
        (None, "metadata.verifier: missing"),
        ({"verifier": "oracle"}, "'oracle' is unknown; use exact, number, reasoning-gym or ifeval"),
        ({"verifier": "exact", "answer": 3}, "metadata.answer: must be str, not 3"),
        ({"verifier": "exact", "answer": " \n"}, "metadata.answer: is empty"),
        (
            {"verifier": "exact", "answer": "3", "anwser": "3"},
            "metadata.anwser: unknown field; known: verifier, answer",
        ),
        (TASK.metadata(1) | {"index": 3}, "no question 3 of 3"),
        (TASK.metadata(1) | {"task": "chain_sums"}, "did you mean chain_sum"),
        (TASK.metadata(1) | {"config": {"max_term": 2}}, "chain_sum: config: "),
        (TASK.metadata(1) | {"config": {"max_terms": 1}}, "chain_sum: config: "),
    ],
)
def test_questions_that_cannot_be_verified_are_refused(tmp_path, capsys, metadata, message):
    row = question("a") | ({} if metadata is None else {"metadata": metadata})
    assert run(tmp_path, [row], [answer("a", "1")]) == 2
    err = capsys.readouterr().err
    assert "questions.jsonl: line 1: " in err and message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "questions.jsonl"]


def test_an_output_that_is_there_is_replaced_only_by_request(tmp_path, capsys):
    rows = [exact("a", "1")], [answer("a", "1")]
    (tmp_path / "scores.jsonl").write_text("before")
    assert run(tmp_path, *rows) == 2
    assert "scores.jsonl: exists; name another file, or" in capsys.readouterr().err
    assert (tmp_path / "scores.jsonl").read_text() == "before"
    assert not run(tmp_path, *rows, "--overwrite")
    assert read(tmp_path / "scores.jsonl")[0]["score"] == 1


def test_answers_of_another_job_are_refused(tmp_path, capsys):
    assert run(tmp_path, [exact("a", "1")], [answer("b", "1")]) == 2
    assert "custom_id 'b' is not in" in capsys.readouterr().err
    questions = write(tmp_path / "questions.jsonl", [exact("a", "1")])
    beside = tmp_path / "answers.jsonl.manifest.json"
    beside.write_text(json.dumps({"model": "m", "fingerprint": "", "input_sha256": "0",
                                  "options": {}, "finished": {}}))  # fmt: skip
    assert run(tmp_path, read(questions), [answer("a", "1")]) == 2
    assert "has SHA-256" in capsys.readouterr().err
