"""`llama-jax evaluate` with the real engine and a tiny model."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
import transformers

from llama_jax.__main__ import main
from llama_jax.verifiers import verifier_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHOICES = [
    {"question": "2+2", "choices": ["4", "five", "a longer one"], "answer": 0, "id": "sum"},
    {"question": "Capital of France", "choices": ["Rome", "Paris"], "answer": "Paris",
     "category": "cities"},
    {"question": "Capital of Italy", "choices": ["Rome", "Paris é"], "answer": 0,
     "category": "cities"},
    {"question": "x" * 300, "choices": ["a", "b"], "answer": 0},
]  # fmt: skip
OPEN = [
    {"custom_id": "e", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4,
     "metadata": {"verifier": "exact", "answer": "never", "category": "greetings"}},
    {"prompt": "Hi", "max_tokens": 3, "n": 3, "temperature": 1,
     "metadata": {"verifier": "exact", "answer": "never"}},
]  # fmt: skip


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *map(str, arguments)])
    return stop.value.code


@pytest.fixture(scope="module")
def evaluation(chat_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    choices = write(folder / "choices.jsonl", CHOICES)
    written = write(folder / "open.jsonl", OPEN)
    output = folder / "out"
    command = [
        chat_checkpoint, choices, written, "reasoning-gym:chain_sum", "--output", output, "--rows",
        "2", "--questions", "3", "--max-new-tokens", "5", "--quiet",
    ]  # fmt: skip
    code = run(*command)
    results = json.loads((output / "results.json").read_text())
    return SimpleNamespace(
        folder=folder, output=output, command=command, code=code, results=results["tasks"],
        all=results,
    )  # fmt: skip


def marks_of(evaluation, task):
    rows = read(evaluation.output / "questions.jsonl")
    return {row["question"]: row for row in rows if row["task"] == task}


def test_choices_are_as_likely_as_transformers_says(evaluation, chat_checkpoint):
    """Chat format: the tokens after the question's are those of the choice. The engine's float32
    sums differ from torch's by rounding: 1e-4 of some tens of nats."""
    model = transformers.LlamaForCausalLM.from_pretrained(chat_checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(chat_checkpoint)
    marks = marks_of(evaluation, "choices")
    for name, question in (("sum", CHOICES[0]), ("line-3", CHOICES[2])):
        prompt = [256, 258, *tokenizer.encode(question["question"]), 257, 259]
        for choice, logprob in zip(question["choices"], marks[name]["logprobs"], strict=True):
            ids = tokenizer.encode(choice)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, :, :261]
            scores = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            expected = sum(float(scores[place, token]) for place, token in enumerate(ids))
            assert logprob == pytest.approx(expected, abs=1e-4 * max(1, abs(expected)))


def test_the_likeliest_choice_is_the_answer(evaluation):
    marks = marks_of(evaluation, "choices")
    assert list(marks) == ["sum", "line-2", "line-3", "line-4"]
    for name, question in zip(list(marks)[:3], CHOICES, strict=False):
        logprobs = marks[name]["logprobs"]
        per_byte = [
            value / len(choice.encode())
            for value, choice in zip(logprobs, question["choices"], strict=True)
        ]
        for metric, values in (("accuracy", logprobs), ("accuracy_per_byte", per_byte)):
            right = values.index(max(values)) == marks[name]["answer"]
            assert marks[name][metric] == float(right)
        # Every byte is a token of this vocabulary.
        assert marks[name]["accuracy_per_token"] == marks[name]["accuracy_per_byte"]


def test_results_are_means_with_errors_and_by_category(evaluation):
    assert evaluation.code == 1  # one question does not fit the context
    result = evaluation.results["choices"]
    assert (result["questions"], result["failed"]) == (3, 1)
    marks = [row["accuracy"] for row in marks_of(evaluation, "choices").values() if "answer" in row]
    share = sum(marks) / 3
    metric = result["metrics"]["accuracy"]
    assert metric["mean"] == pytest.approx(share)
    assert metric["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / 2))
    assert result["categories"]["cities"]["questions"] == 2
    assert evaluation.all["options"]["seed"] == 0 and len(evaluation.all["model_sha256"]) == 64


def test_open_questions_are_marked_by_their_verifiers(evaluation):
    result = evaluation.results["open"]
    assert result["questions"] == 2 and result["metrics"]["accuracy"]["mean"] == 0
    assert len(marks_of(evaluation, "open")["line-2"]["answers"]) == 3
    sums = marks_of(evaluation, "reasoning-gym:chain_sum")
    for index, row in sums.items():
        metadata = {"verifier": "reasoning-gym", "task": "chain_sum", "seed": 1 << 30, "size": 3,
                    "index": int(index), "config": {}}  # fmt: skip
        assert row["scores"] == [verifier_of(metadata)(text) for text in row["answers"]]
        assert row["cut_off"] in (0, 1)


def test_the_same_command_again_counts_without_the_model(evaluation, monkeypatch, capsys):
    before = (evaluation.output / "results.json").read_bytes()
    (evaluation.output / "results.json").unlink()
    monkeypatch.setattr("infer.loaded_model.load_model", None)
    assert run(*evaluation.command) == 1
    assert (evaluation.output / "results.json").read_bytes() == before
    out = capsys.readouterr().out
    assert "choices: 3 questions, 1 without an answer" in out
    assert "of     2  cities" in out


def test_other_questions_in_the_same_folder_are_refused(evaluation, capsys):
    assert run(*evaluation.command, "--questions", "4") == 2
    assert "asks other questions than these" in capsys.readouterr().err
    assert run(*evaluation.command, "--max-new-tokens", "6") == 2
    assert "it has --max-new-tokens 5, not 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row, message",
    [
        ({"question": "q", "choices": ["a"], "answer": 0}, "choices: must be two or more"),
        ({"question": "q", "choices": ["a", "a"], "answer": 0}, "choices: must be two or more"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "answer: must be a place"),
        ({"question": "q", "choices": ["a", "b"], "answer": "c"}, "answer: must be a place"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "answer: must be a place"),
        ({"question": " ", "choices": ["a", "b"], "answer": 0}, "question: must be a text"),
        ({"question": "q", "choices": ["a", "b"], "answer": 0, "subject": "x"}, "subject: unknown"),
        ({"prompt": "x"}, "metadata.verifier: missing"),
        ({"prompt": "x", "metadata": {"verifier": "llm"}}, "'llm' is unknown"),
        ({"promt": "x"}, "either prompt or messages"),
        ("{", "not valid JSON"),
    ],
)
def test_bad_questions_name_their_line(chat_checkpoint, tmp_path, capsys, row, message):
    good = {"question": "q", "choices": ["a", "b"], "answer": 0}
    path = write(tmp_path / "task.jsonl", [good, row])
    assert run(chat_checkpoint, path, "--output", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "task.jsonl: line 2: " in err and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["mmlu"],
            "no task 'mmlu'; give a file that ends in .jsonl, reasoning-gym:NAME, gsm8k:FILE, ifev",
        ),
        (["mmlu-dev:xx"], "no such language; there are de, es"),
        (["reasoning-gym:chain_sun"], "did you mean chain_sum"),
        (["nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (["EMPTY"], "holds no question"),
        (["reasoning-gym:chain_sum", "--questions", "0"], "--questions must be at least 1"),
        (
            ["reasoning-gym:chain_sum", "--few-shot", "1"],
            "only questions with choices can be shown",
        ),
        (["reasoning-gym:chain_sum", "--few-shot", "-1"], "--few-shot must be at least 0, not -1"),
        (["EMPTY", "--examples", "x.jsonl"], "--examples: say how many stand before a question"),
        (["gsm8k:x.jsonl", "--few-shot", "1", "--examples", "y.jsonl"], "has examples of its own"),
        (["reasoning-gym:chain_sum", "reasoning-gym:chain_sum"], "is given twice"),
        (["reasoning-gym:chain_sum", "--format", "raw"], "messages: this is a base model"),
    ],
)
def test_bad_arguments_end_in_one_line(chat_checkpoint, tmp_path, capsys, arguments, message):
    empty = write(tmp_path / "empty.jsonl", [])
    arguments = [str(empty) if word == "EMPTY" else word for word in arguments]
    assert run(chat_checkpoint, *arguments, "--output", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
