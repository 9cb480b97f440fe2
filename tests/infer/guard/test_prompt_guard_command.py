"""`llama-jax prompt-guard` over files, with a random tiny classifier."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from llama_jax.__main__ import main
from llama_jax.safety.prompt_guard import LABELS, load_prompt_guard

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = [
    {"prompt": "the quick brown fox"},
    {"prompt": "words and words " * 20, "custom_id": "long"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "a page"}]},
    {
        "custom_id": "openai",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": "Once", "max_tokens": 5},
    },
]
BAD = [
    ({"messages": [{"role": "user", "content": "a"}], "answer": "b"}, "the last is the assistant"),
    ({"prompt": ["a", "b"]}, "prompt: must be one text"),
    ({"text": "a"}, "a plain row has either prompt or messages"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights, and a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("prompt-guard")
    letters = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz "]
    inside = Tokenizer(models.WordLevel({t: i for i, t in enumerate(letters)}, "[UNK]"))
    inside.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inside.add_special_tokens(letters[:4])
    inside.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"unk_token": "[UNK]"}')
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, relative_attention=True,
        position_buckets=8, share_att_key=True, pos_att_type="p2c|c2p", norm_rel_ebd="layer_norm",
        position_biased_input=False, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["prompt-guard", *map(str, arguments)])
    return stop.value.code


def test_every_row_gets_the_worst_of_its_windows(model, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [*ROWS, *(row for row, _ in BAD)])
    output = tmp_path / "out.jsonl"
    assert run(model, source, output, "--threshold", "0.34", "--batch-rows", "4") == 1
    rows = read(output)
    assert [row["custom_id"] for row in rows] == ["line-1", "long", "line-3", "openai"]
    assert [row["source"] for row in rows] == ["user", "user", "third_party", "user"]
    assert [row["windows"] > 1 for row in rows] == [False, True, False, False]
    guard = load_prompt_guard(model)
    (scores,) = guard.scores([guard.encode(ROWS[1]["prompt"])])
    jailbreak = scores.probabilities[:, LABELS.index("JAILBREAK")]
    assert rows[1]["score"] == pytest.approx(jailbreak.max(), rel=1e-4)
    assert rows[1]["window"] == jailbreak.argmax() and rows[1]["windows"] == len(jailbreak)
    for row in rows:
        chances = row["probabilities"]
        named = "JAILBREAK" if row["source"] == "user" else "INJECTION"
        expected = chances["JAILBREAK"] + (chances["INJECTION"] if named == "INJECTION" else 0)
        assert row["score"] == pytest.approx(expected, rel=1e-4)
        assert (row["verdict"] == "unsafe") == (row["score"] > 0.34)
        assert row["label"] == max(chances, key=chances.get)
    failed = read(tmp_path / "out.jsonl.errors.jsonl")
    for row, (_, words) in zip(failed, BAD, strict=True):
        assert words in row["error"]["message"]
    unsafe = sum(row["verdict"] == "unsafe" for row in rows)
    assert f"unsafe: {unsafe} of 4" in capsys.readouterr().err
    assert run(model, source, output, "--threshold", "0.34") == 1
    assert "finished before; nothing is left to do" in capsys.readouterr().err
    assert run(model, source, output, "--threshold", "0.5") == 2
    assert "it has --threshold 0.34, not 0.5" in capsys.readouterr().err


def test_a_job_that_was_stopped_goes_on(model, tmp_path, monkeypatch, capsys):
    """Ended by a signal after its first group, and started again: each row once, in order."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "x" * (1 + n % 9)} for n in range(20)])
    output, asked = tmp_path / "out.jsonl", []

    def stop_after_one_group(self, step):
        asked.append(step)
        return step == 1

    with monkeypatch.context() as patched:
        patched.setattr("infer.batch.stop_signals.StopSignals.requested", stop_after_one_group)
        assert run(model, source, output, "--batch-rows", "1") == 143
    assert asked == [0, 1] and not output.exists()
    assert "every finished row is kept" in capsys.readouterr().err
    assert run(model, source, output, "--batch-rows", "1") == 0
    assert "going on: " in capsys.readouterr().err
    assert [row["custom_id"] for row in read(output)] == [f"line-{n}" for n in range(1, 21)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--threshold", "1"], "--threshold must be between 0 and 1"),
        (["--window", "65"], "window: must be from 3 to the model's context of 64"),
        (["--overlap", "62"], "overlap: must be from 0 to 61"),
        (["--batch-rows", "0"], "batch_rows: must be at least 1"),
    ],
)
def test_bad_options_end_in_one_line_and_leave_nothing(model, tmp_path, capsys, arguments, message):
    source = write(tmp_path / "in.jsonl", ROWS)
    assert run(model, source, tmp_path / "out.jsonl", *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_llama_is_no_prompt_guard(guard_checkpoint, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", ROWS)
    assert run(guard_checkpoint, source, tmp_path / "out.jsonl") == 2
    assert "model_type 'llama' is not supported here" in capsys.readouterr().err.splitlines()[-1]
