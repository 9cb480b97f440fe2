"""Questions, answers and pairs from reasoning-gym: right ones are right, splits are apart."""

import json

import pytest

from configs.reasoning_gym import export, wrong_answer
from configs.reasoning_gym_pairs import export_pairs
from llama_jax.batch_files.batch_row import parse_batch_row
from llama_jax.errors import InputError
from llama_jax.verifiers import ReasoningGymTask, verifier_of
from tests.train.selection.job_files import answer, write
from train.selection.verify_command import verify as verify_answers

# Sums of two digits: a hundred questions, so that train and held-out meet by chance.
SMALL = '{"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}'


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    export(folder, task=("chain_sum",), train=150, held_out=30, config=SMALL, samples=4)
    return folder


def test_held_out_questions_are_in_no_other_file(folder):
    asked = {
        name: [row["messages"][0]["content"] for row in read(folder / f"{name}.jsonl")]
        for name in ("sft", "preferences", "questions", "held_out")
    }
    assert len(asked["held_out"]) == 30
    assert not set(asked["held_out"]) & set(asked["sft"])
    assert asked["sft"] == asked["questions"] and set(asked["preferences"]) <= set(asked["sft"])
    # Some of the 150 were asked twice or are held out: the test would be empty otherwise.
    assert 20 < len(asked["sft"]) == len(set(asked["sft"])) < 150


def test_parts_share_no_question_and_are_all_of_them(folder, tmp_path):
    options = {"task": ("chain_sum",), "train": 150, "held_out": 30, "config": SMALL}
    export(tmp_path, **options, samples=4, parts=3)
    assert read(tmp_path / "held_out.jsonl") == read(folder / "held_out.jsonl")
    for name in ("sft", "preferences", "questions"):
        rows = [read(tmp_path / f"part-{part}" / f"{name}.jsonl") for part in (1, 2, 3)]
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
        together = sorted(json.dumps(row) for some in rows for row in some)
        assert together == sorted(json.dumps(row) for row in read(folder / f"{name}.jsonl"))


def test_the_answers_are_what_the_verifier_calls_right_and_wrong(folder):
    for row in read(folder / "sft.jsonl"):
        assert verify(row["provenance"], row["messages"][-1]["content"]) == 1
    for row in read(folder / "preferences.jsonl"):
        assert verify(row["provenance"], row["chosen"]) == 1
        assert verify(row["provenance"], row["rejected"]) < 1


def verify(provenance, text):
    fields = {
        name: value for name, value in provenance.items() if name not in ("source", "licence")
    }
    return verifier_of(fields)(text)


def test_questions_are_rows_of_a_batch_job(folder):
    lines = (folder / "questions.jsonl").read_bytes().splitlines()
    row = parse_batch_row(lines[0], 1)
    assert row.body["n"] == 4 and row.category == "chain_sum"
    held_out = read(folder / "held_out.jsonl")[0]
    assert held_out["temperature"] == 0 and held_out["custom_id"] == "chain_sum-held-out-0"


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    export(tmp_path, task=("chain_sum",), train=150, held_out=30, config=SMALL, samples=4)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("name", ["gsm_symbolic", "syllogism", "number_sorting", "spell_backward"])
def test_wrong_answers_are_wrong_in_other_tasks_too(name):
    task = ReasoningGymTask(name, 0, 8)
    for index in range(8):
        wrong = wrong_answer(task, index)
        assert wrong is not None and task.score(index, wrong) < 1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"train": 0}, "--train and --held-out"),
        ({"parts": 0}, "--parts 0: must be at least 1"),
        ({"parts": 3}, "--parts 3: must be at least 1, and --train at most"),
        ({"task": ()}, "--task: give at least one"),
        ({"task": ("chain_sum", "chain_sum")}, "each once"),
        ({"config": "{"}, "--config: not valid JSON"),
        ({"config": '{"seed": 3}'}, "without seed and size"),
        ({"task": ("chain_sun",)}, "did you mean chain_sum"),
    ],
)
def test_bad_options_are_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path, **{"task": ("chain_sum",), "train": 2, "held_out": 2} | fields)
    assert not list(tmp_path.iterdir())


def test_a_models_own_mistake_stands_against_the_right_answer(folder, tmp_path):
    asked = read(folder / "questions.jsonl")[:3]
    right = [row["messages"][-1]["content"] for row in read(folder / "sft.jsonl")[:3]]
    replies = [[right[0], "wrong", ("cut", "length")], [right[1]] * 3, [("cut", "length")] * 3]
    questions = write(tmp_path / "q.jsonl", asked)
    answers = write(
        tmp_path / "a.jsonl",
        [answer(row["custom_id"], *some) for row, some in zip(asked, replies, strict=True)],
    )
    marks, output = tmp_path / "s.jsonl", tmp_path / "pairs.jsonl"
    verify_answers(answers, marks, questions=questions, quiet=True)
    pairs = {"questions": questions, "scores": marks, "licence": "CC0"}
    export_pairs(answers, **pairs, output=output, model="tiny")
    (pair,) = read(output)
    assert pair["messages"] == asked[0]["messages"] and pair["chosen"] == right[0]
    assert pair["rejected"] == {"role": "assistant", "content": "wrong"}
    of_rejected = pair["provenance"]["rejected"]
    assert (of_rejected["licence"], of_rejected["model"]) == ("CC0", "tiny")
    assert (of_rejected["sample"], of_rejected["score"]) == (1, 0)
    before = output.read_bytes()
    with pytest.raises(InputError, match="does not say who answered"):
        export_pairs(answers, **pairs, output=output, overwrite=True)
    assert output.read_bytes() == before
    with pytest.raises(InputError, match="is an input"):
        export_pairs(answers, **pairs, output=marks)
