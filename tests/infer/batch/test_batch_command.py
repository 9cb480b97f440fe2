"""`llama-jax batch` with the real engine and a tiny model."""

import json
from types import SimpleNamespace

import pytest

from infer.batch.job_shape import JobShape
from infer.batch.options import BatchOptions
from infer.batch.row_request import row_seed
from infer.generate import Generator
from infer.load_engine import EngineOptions
from infer.loaded_model import load_model
from llama_jax.__main__ import main
from llama_jax.chat import Message
from llama_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")

MESSAGES = [{"role": "user", "content": "Why?"}]


def openai(custom_id, url, **body):
    return {"custom_id": custom_id, "method": "POST", "url": f"/v1/{url}", "body": body}


GOOD = [
    {"prompt": "Hi", "temperature": 0},
    {"custom_id": "own", "prompt": "Hi", "temperature": 0, "max_tokens": 3},
    openai("chat", "chat/completions", messages=MESSAGES, temperature=0, max_tokens=5),
    openai("sampled", "completions", prompt="Hi", temperature=1, n=2, max_tokens=5),
    {"custom_id": "talk", "messages": MESSAGES, "temperature": 1},
    openai("scored", "completions", prompt="Hi you", echo=True, logprobs=1, max_tokens=0),
]
BAD = [
    ("{", "not valid JSON"),
    ({"prompt": "x", "tempreature": 1}, "tempreature: "),
    ({"prompt": "x", "temperature": -1}, "temperature: must be 0 or more"),
    ({"prompt": "x", "n": 10**9}, "n: must be"),
    ({"prompt": "x" * 300}, "prompt and answer share a context of 256"),
    ({"prompt": "x", "max_tokens": 10**9}, "max_tokens: 1000000000 new tokens"),
    ({"prompt": "x", "stream": True}, "stream"),
    (openai("streams", "chat/completions", messages=MESSAGES, stream=True), "stream: "),
    (
        openai("other", "chat/completions", messages=MESSAGES, model="gpt-5"),
        "'gpt-5' is not served",
    ),
    (openai("empty", "chat/completions", messages=[]), "messages: "),
    ({"prompt": "x", "response_format": {"type": "json_schema"}}, "json_schema"),
    ({"custom_id": "own", "prompt": "again"}, "'own' is that of line 2"),
    ({"prompt": "x", "seed": "many"}, "seed: "),
    ({"prompt": "x", "logit_bias": {"9999999": 1}}, "logit_bias"),
    ({"prompt": []}, "prompt"),
]


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def job(chat_checkpoint, tmp_path_factory):
    """The job of all rows, good and bad, answered two at a time."""
    folder = tmp_path_factory.mktemp("job")
    source = write(folder / "in.jsonl", [*GOOD, *(row for row, _ in BAD)])
    with open(source, "ab") as file:
        file.write(b'{"prompt": "caf\xe9"}\n')
    output = folder / "out.jsonl"
    command = ["batch", str(chat_checkpoint), str(source), str(output)]
    options = ["--rows", "2", "--max-new-tokens", "9", "--seed", "3", "--quiet"]
    with pytest.raises(SystemExit) as stop:
        main([*command, *options])
    return SimpleNamespace(
        folder=folder, command=command, options=options, code=stop.value.code, output=output,
        errors=folder / "out.jsonl.errors.jsonl",
    )  # fmt: skip


@pytest.fixture(scope="module")
def answers(job):
    return {row["custom_id"]: row for row in read(job.output)}


def test_good_rows_are_answered_and_bad_ones_say_why(job, answers):
    assert job.code == 1
    assert list(answers) == ["line-1", "own", "chat", "sampled", "talk", "scored"]
    failed = read(job.errors)
    assert [row["line"] for row in failed] == list(range(7, 8 + len(BAD)))
    for row, (_, words) in zip(failed, [*BAD, ("", "not valid JSON")], strict=True):
        assert words in row["error"]["message"], row
        assert "\n" not in row["error"]["message"]


def test_greedy_rows_are_those_of_generate(chat_checkpoint, answers):
    loaded = load_model(chat_checkpoint)
    generator = Generator(loaded.config, loaded.params, eos_ids=loaded.eos_ids)

    def text(content, limit):
        prompt = loaded.chat_format.encode_prompt([Message("user", content)])
        (completion,) = generator.generate([prompt], max_new_tokens=limit)
        return loaded.tokenizer.decode(completion.tokens, skip_special=True)

    assert answers["line-1"]["text"] == text("Hi", 9)
    assert answers["own"]["text"] == text("Hi", 3)
    (choice,) = answers["chat"]["response"]["body"]["choices"]
    assert choice["message"]["content"] == text("Why?", 5)


def test_both_kinds_of_rows_have_their_fields(answers):
    assert answers["own"].keys() == {"custom_id", "text", "finish_reason", "usage"}
    assert answers["chat"].keys() == {"id", "custom_id", "response", "error"}
    body = answers["sampled"]["response"]["body"]
    assert len({choice["text"] for choice in body["choices"]}) == 2
    scored = answers["scored"]["response"]["body"]["choices"][0]["logprobs"]
    assert scored["token_logprobs"][0] is None and scored["token_logprobs"][1] < 0


@pytest.mark.slow
def test_an_answer_depends_on_its_row_alone(job, answers, chat_checkpoint):
    """Other neighbours, another order, more rows at once: the same answers to the same rows."""
    names = ("sampled", "talk", "own")
    rows = [row for row in reversed(GOOD) if row.get("custom_id") in names]
    rows.insert(1, {"prompt": "someone else", "temperature": 1, "max_tokens": 30})
    output = job.folder / "alone.jsonl"
    source = write(job.folder / "alone-in.jsonl", rows)
    with pytest.raises(SystemExit) as stop:
        main([*job.command[:2], str(source), str(output), *job.options, "--no-roofline"])
    assert stop.value.code == 0
    for row in read(output):
        if row["custom_id"] in names:
            expected = answers[row["custom_id"]]
            if "text" in expected:
                assert row == expected
            else:
                assert row["response"]["body"]["choices"] == expected["response"]["body"]["choices"]


def test_a_finished_job_says_so_and_loads_nothing(job, capsys, monkeypatch):
    monkeypatch.setattr("infer.loaded_model.load_model", None)
    before = job.output.read_bytes()
    with pytest.raises(SystemExit) as stop:
        main([*job.command, *job.options])
    assert stop.value.code == 1
    assert "finished before; nothing is left to do" in capsys.readouterr().err
    assert job.output.read_bytes() == before


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--seed", "4"], "it has --seed 3, not 4"),
        (["--rows", "3"], "it has --rows 2, not 3"),
        (["--dtype", "bfloat16"], "it has --dtype by default, not bfloat16"),
    ],
    ids=["seed", "rows", "dtype"],
)
def test_other_options_are_refused(job, capsys, changes, message):
    with pytest.raises(SystemExit) as stop:
        main([*job.command, *job.options, *changes])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_another_model_is_refused(job, capsys, base_checkpoint):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "batch",
                str(base_checkpoint),
                *job.command[2:],
                *job.options,
                "--served-model-name",
                "chat",
            ]
        )
    assert stop.value.code == 2
    assert "with other files than" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.jsonl", "out"], "nowhere.jsonl: there is no such file"),
        (["IN", "IN"], "is the input"),
        (["IN", "out", "--rows", "0"], "--rows must be at least 1"),
        (["IN", "out", "--max-new-tokens", "0"], "--max-new-tokens must be at least 1"),
        (["IN", "out", "--seed", "-1"], "--seed must be from 0"),
        (["IN", "out", "--cache-gigabytes", "0"], "--cache-gigabytes must be above 0"),
        (["IN", "out", "--served-model-name", ""], "--served-model-name must be printable"),
        (["IN", "missing/out"], "its folder does not exist"),
        (["EMPTY", "out"], "holds no row"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, capsys, chat_checkpoint, arguments, message):
    write(tmp_path / "IN", [{"prompt": "x"}])
    write(tmp_path / "EMPTY", [])
    paths = [str(tmp_path / name) for name in arguments[:2]]
    with pytest.raises(SystemExit) as stop:
        main(["batch", str(chat_checkpoint), *paths, *arguments[2:]])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out
    assert message in err.splitlines()[-1] and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["EMPTY", "IN"]


def test_a_row_without_a_seed_draws_one_from_its_name():
    seeds = {row_seed(job, name) for job in (0, 1) for name in ("a", "b", "line-1")}
    assert len(seeds) == 6 and all(0 <= seed < 2**32 for seed in seeds)
    # The first bytes of `printf 0:a | sha256sum`: fixed, so that a job can be repeated elsewhere.
    assert row_seed(0, "a") == int.from_bytes(bytes.fromhex("9df3c5fa"), "little")


def test_options_that_change_no_answer_are_not_kept():
    options = BatchOptions(("m",), engine=EngineOptions(cache_gigabytes=1.0))
    assert options.of_answers == BatchOptions(("m",)).of_answers
    with pytest.raises(InputError):
        EngineOptions(cache_gigabytes=float("nan"))


def test_the_shape_of_a_job_is_said():
    shape = JobShape(2, 3, (1, 1, 1, 5, 5, 5, 5, 1200), (16,) * 8, False)
    assert str(shape) == (
        "3 answers; prompts of about 5 tokens, the longest 1,200; up to 16 new tokens, at most 16"
    )
