"""`llama-jax score`: scores are those of transformers, whatever else is in the file."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from llama_jax.batch_files.score_row import read_score_groups
from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.errors import InputError
from llama_jax.model import init_params
from llama_jax.tokenizers import load_tokenizer
from train.scoring.reward_scorer import RewardScorer
from train.scoring.score_command import score

from .chat_runs import MODEL, preferences, reward_model, write_tokenizer

pytestmark = pytest.mark.usefixtures("quick_compilation")

TEMPLATE = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
TEMPLATE += "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reward model with random weights and its tokenizer, and a policy."""
    folder = tmp_path_factory.mktemp("scoring")
    config = reward_model(folder).model
    for name, model in (("reward", config), ("policy", MODEL)):
        params = init_params(model, jax.random.key(0))
        params = jax.tree.map(lambda leaf: 4 * leaf, params)
        save_checkpoint(folder / name, model, params, format="hf")
    write_tokenizer(folder / "reward")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """expected(prompt, answer) -> what transformers gives it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward")
    tokenizer = load_tokenizer(folder / "reward")
    marks = {"<|im_start|>": 258, "<|im_end|>": 259}

    def expected(prompt, answer):
        ids, text = [], TEMPLATE.format(prompt, answer)
        while text:
            mark = next((mark for mark in marks if text.startswith(mark)), None)
            ids += [marks[mark]] if mark else tokenizer.encode(text[0])
            text = text[len(mark or text[0]) :]
        with torch.no_grad():
            return model(torch.tensor([ids])).logits.item()

    return expected


def write(path: Path, lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_preferences(folder, tmp_path, expected, capsys):
    """float32: measured 4e-6 where scores are 2."""
    lines = preferences("abcdef")
    for line, category in zip(lines, ["code", "code", "chat", "chat", "chat", None], strict=True):
        if category:
            line["category"] = category
    lines[5]["messages"][0]["content"] = "a longer question, of another padded length" * 3
    path = write(tmp_path / "preferences.jsonl", lines)
    score(str(folder / "reward"), path, tmp_path / "out.jsonl", tokens_at_once=300, quiet=True)
    found = read(tmp_path / "out.jsonl")
    right = total = 0
    for number, (line, row) in enumerate(zip(lines, found, strict=True), 1):
        assert row["line"] == number and row.get("category") == line.get("category")
        prompt = line["messages"][0]["content"]
        wanted = {name: expected(prompt, line[name]) for name in ("edited", "chosen", "rejected")}
        assert row["scores"] == pytest.approx(wanted, abs=1e-5)
        e, c, r = wanted.values()
        right, total = right + (e > c) + (e > r) + (c > r), total + 3
    said = capsys.readouterr().out
    assert "out.jsonl: 6 preferences" in said
    assert f"{right / total:7.1%} of {total} comparisons right" in said and "  code\n" in said
    assert not list(tmp_path.glob(".*"))


def test_killed_it_goes_on_and_scores_nothing_twice(folder, tmp_path, monkeypatch):
    lines = write(tmp_path / "in.jsonl", preferences("abcdefghij"))
    monkeypatch.setattr("train.scoring.scored_rows._WINDOW_ROWS", 4)
    of_texts, calls = RewardScorer.__call__, []

    def dying(scorer, texts):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return of_texts(scorer, texts)

    monkeypatch.setattr(RewardScorer, "__call__", dying)
    command = (str(folder / "reward"), lines, tmp_path / "out.jsonl")
    with pytest.raises(KeyboardInterrupt):
        score(*command, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.parts"]
    score(*command, quiet=True)
    assert calls == [12, 12, 6, 6] and not (tmp_path / "out.jsonl.parts").exists()
    whole = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(InputError, match="out.jsonl: exists"):
        score(*command, quiet=True)
    score(*command, overwrite=True, quiet=True)
    assert calls[4:] == [12, 12, 6] and (tmp_path / "out.jsonl").read_bytes() == whole


def test_answers_of_a_batch_job(folder, tmp_path, expected):
    questions = [
        {"custom_id": "a", "messages": [{"role": "user", "content": "x"}]},
        {"custom_id": "b", "messages": [{"role": "user", "content": "failed"}]},
        {"custom_id": "c", "messages": [{"role": "user", "content": "y"}], "n": 3},
    ]
    texts = [("one", "stop"), ("cut off", "length"), ("three", "stop")]
    choices = [{"text": text, "finish_reason": reason} for text, reason in texts]
    answers = [
        {"custom_id": "a", "text": "yes", "finish_reason": "stop"},
        {"custom_id": "c", "choices": choices},
    ]
    out = tmp_path / "scores.jsonl"
    score(
        str(folder / "reward"),
        write(tmp_path / "answers.jsonl", answers),
        out,
        questions=write(tmp_path / "questions.jsonl", questions),
        quiet=True,
    )
    (first,), rest = read_score_groups(out)
    assert (first.custom_id, first.sample, first.model) == ("a", 0, "reward")
    assert first.score == pytest.approx(expected("x", "yes"), abs=1e-5)
    assert [row.sample for row in rest] == [0, 2]
    assert rest[1].score == pytest.approx(expected("y", "three"), abs=1e-5)
    assert len(first.model_sha256) == len(first.answer_sha256) == 64


def test_what_cannot_be_scored_is_left_out_if_asked(folder, tmp_path, capsys):
    """An answer that is too long, and one with a broken tool call."""
    names = "abc"
    asked = [{"custom_id": n, "messages": [{"role": "user", "content": n}]} for n in names]
    broken = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    choices = [{"text": text, "finish_reason": "stop"} for text in ("?" * 500, "yes")]
    answers = [
        {"custom_id": "a", "choices": choices},
        {"custom_id": "b", "text": "", "finish_reason": "tool_calls", "tool_calls": [broken]},
        {"custom_id": "c", "text": "no", "finish_reason": "stop"},
    ]
    command = (str(folder / "reward"), write(tmp_path / "in.jsonl", answers), tmp_path / "out")
    options = {"questions": write(tmp_path / "questions.jsonl", asked), "quiet": True}
    with pytest.raises(InputError, match="line 1: sample 0: messages: .*--on-error skip"):
        score(*command, **options)
    assert not (tmp_path / "out").exists()
    score(*command, **options, on_error="skip")
    out, err = capsys.readouterr()
    assert "2 answers, mean score" in out and ", 2 left out" in out
    assert "left out: " in err and "line 2: sample 0: " in err
    (long, whole), (call,), (last,) = read_score_groups(tmp_path / "out")
    assert "tokens with the answer" in long.error and call.error and long.score is None
    assert whole.score != last.score and whole.error is None
    lines = preferences("ab")
    lines[0]["chosen"] = "?" * 500
    command = (str(folder / "reward"), write(tmp_path / "p.jsonl", lines), tmp_path / "pairs")
    score(*command, on_error="skip", quiet=True)
    assert [row["line"] for row in read(tmp_path / "pairs")] == [2]
    assert "1 preference, 1 left out" in capsys.readouterr().out


def test_batches_and_devices_change_nothing(folder):
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 250, n) for n in (3, 64, 65, 200, 7, 384)]
    options = {"dtype": None, "tokens_at_once": 128}
    one = RewardScorer(folder / "reward", num_devices=1, **options)(texts)
    many = RewardScorer(folder / "reward", num_devices=8, **options)(texts)
    alone = [RewardScorer(folder / "reward", num_devices=1, **options)([t])[0] for t in texts[:2]]
    np.testing.assert_allclose(many, one, atol=2e-6)  # float32, summed in another order
    np.testing.assert_allclose(alone, one[:2], atol=2e-6)
    assert len(set(one)) == len(texts)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "policy"}, "policy: is no reward model"),
        ({"lines": []}, "in.jsonl: has no lines"),
        ({"lines": [{"messages": [], "chosen": "a", "rejected": "b"}]}, "in.jsonl: line 1: messa"),
        ({"lines": [{**preferences("a")[0], "x": 1}]}, "in.jsonl: line 1: x: unknown field"),
        ({"lines": [{**preferences("a")[0], "chosen": "?" * 500}]}, "line 1: messages: 5.. tokens"),
        ({"output": "nowhere/out.jsonl"}, "is a folder, or in none"),
        ({"output": "in.jsonl"}, "in.jsonl: is an input"),
        ({"devices": 99}, "--devices 99: there are"),
        ({"tokens_at_once": 0}, "--tokens-at-once must be at least 1"),
    ],
)
def test_what_cannot_be_scored_is_one_line(folder, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    change = {"model": "reward", "lines": preferences("a"), "output": "out.jsonl", **change}
    write(Path("in.jsonl"), change.pop("lines"))
    model, output = folder / change.pop("model"), Path(change.pop("output"))
    with pytest.raises(InputError, match=message) as error:
        score(str(model), Path("in.jsonl"), output, quiet=True, **change)
    assert "\n" not in str(error.value) and not Path("out.jsonl").exists()
