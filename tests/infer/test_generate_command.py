"""The command `generate`, its prompts and its output."""

import codecs
import json
from types import SimpleNamespace

import pytest

from infer.generate import Generator
from infer.generate_command import generate, prompt_format, read_prompts
from infer.loaded_model import META_SAMPLING, load_model, sampling_defaults
from infer.sampling import GREEDY, SamplingParameters, override_sampling
from llama_jax.__main__ import main
from llama_jax.chat import Llama31Format, Message
from llama_jax.chat.llama31_format import SPECIAL_TOKENS
from llama_jax.errors import InputError


def test_chat_format_is_applied_and_said(chat_checkpoint, capsys):
    generate(str(chat_checkpoint), prompt=("Hi", "What?"), max_new_tokens=9, json=True)
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert "chat format: template, greedy" in err and "tokens/s" in err
    loaded = load_model(chat_checkpoint)
    prompts = [loaded.chat_format.encode_prompt([Message("user", t)]) for t in ("Hi", "What?")]
    generator = Generator(loaded.config, loaded.params, eos_ids=loaded.eos_ids)
    completions = generator.generate(prompts, max_new_tokens=9)
    assert [row["tokens"] for row in rows] == [completion.tokens for completion in completions]
    assert [row["prompt"] for row in rows] == ["Hi", "What?"]


def test_a_base_model_continues_the_text(base_checkpoint, capsys):
    generate(str(base_checkpoint), prompt=("Hi",), max_new_tokens=9)
    streamed, err = capsys.readouterr()
    assert "raw text" in err
    generate(str(base_checkpoint), prompt=("Hi",), max_new_tokens=9, quiet=True, json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] + "\n" == streamed and not err
    with pytest.raises(InputError, match="base model"):
        generate(str(base_checkpoint), prompt=("Hi",), format="chat")


def test_the_chat_format_can_be_insisted_on():
    """A base model of the Llama 3 family has the special tokens all the same."""
    tokenizer = SimpleNamespace(special_tokens=dict.fromkeys(SPECIAL_TOKENS, 0))
    base = SimpleNamespace(chat_format=None, tokenizer=tokenizer)
    assert prompt_format(base, "auto") is None
    assert prompt_format(base, "chat").name == "llama31"
    tuned = SimpleNamespace(chat_format=Llama31Format(tokenizer))
    assert prompt_format(tuned, "auto") is prompt_format(tuned, "chat") is tuned.chat_format
    assert prompt_format(tuned, "raw") is None


def test_batches_and_seeds(base_checkpoint, capsys):
    """A row's answer does not depend on the batch it is in, nor on the rows beside it."""
    options = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 0.9, "json": True, "quiet": True}
    generate(str(base_checkpoint), prompt=("a", "b", "c"), seed=5, **options)
    together = capsys.readouterr().out
    generate(str(base_checkpoint), prompt=("a", "b", "c"), seed=5, batch_size=1, **options)
    assert capsys.readouterr().out == together
    generate(str(base_checkpoint), prompt=("c",), seed=7, **options)
    assert capsys.readouterr().out == together.splitlines(keepends=True)[2]


def test_prompt_files(tmp_path):
    text = tmp_path / "prompts.txt"
    text.write_bytes("one\r\n\n  two \nd\u2028rei\n".encode())
    assert read_prompts((), text) == ["one", "  two ", "d\u2028rei"]
    rows = tmp_path / "prompts.jsonl"
    rows.write_text('{"prompt": "a\\nb"}\n\n{"prompt": "c"}')
    assert read_prompts((), rows) == ["a\nb", "c"]
    for path in (text, rows):
        expected = read_prompts((), path)
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
        assert read_prompts((), path) == expected


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.txt", b"", "empty.txt: holds no prompt"),
        ("blank.txt", b"\n \n", "holds no prompt"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("a.jsonl", b"{", "a.jsonl:1: not JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n["x"]', "a.jsonl:2: not an object"),
        ("a.jsonl", b'{"prompt": 3}', "not an object with a text"),
        ("a.jsonl", b'{"prompt": "x", "seed": 3}', "'seed' is not supported"),
        ("a.jsonl", b'{"prompt": " "}', "prompt 1 is empty"),
    ],
)
def test_bad_prompt_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts((), tmp_path / name)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "either --prompt or --prompt-file"),
        (["--prompt", ""], "prompt 1 is empty"),
        (["--prompt", "x", "--prompt-file", "y"], "either"),
        (["--prompt", "x", "--top-p", "0.5"], "temperature"),
        (["--prompt", "x", "--temperature", "-1"], "temperature"),
        (["--prompt", "x", "--seed", "-1"], "seed"),
        (["--prompt", "x", "--max-new-tokens", "0"], "max_new_tokens"),
        (["--prompt", "x", "--batch-size", "0"], "batch-size"),
        (["--prompt", "x" * 300], "over the context of 256"),
        (["--prompt-file", "/nowhere.txt"], "/nowhere.txt"),
    ],
)
def test_bad_arguments_end_in_one_line(base_checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["generate", str(base_checkpoint), *arguments])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out
    assert message in err.splitlines()[-1] and "Traceback" not in err


def test_sampling_defaults_of_the_checkpoint():
    def defaults(file_format, **fields):
        return sampling_defaults(fields, file_format=file_format, place="generation_config.json")

    assert defaults("hf") == GREEDY
    assert defaults("hf", temperature=0.6) == GREEDY
    assert defaults("meta") == META_SAMPLING
    asked = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": None}
    assert defaults("orbax", **asked) == SamplingParameters(0.6, top_p=0.9)
    parameters = override_sampling(META_SAMPLING, temperature=None, top_p=0.5, top_k=None, seed=3)
    assert parameters == SamplingParameters(0.6, top_p=0.5, seed=3)


@pytest.fixture
def with_generation(base_checkpoint, tmp_path):
    """The base model with other fields in its generation_config.json."""

    def write(fields):
        for path in base_checkpoint.iterdir():
            (tmp_path / path.name).symlink_to(path)
        (tmp_path / "generation_config.json").unlink()
        (tmp_path / "generation_config.json").write_text(json.dumps(fields))
        return tmp_path

    return write


@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", 1.5),
        ("top_k", 2.5),
        ("top_k", -1),
        ("do_sample", "yes"),
        ("eos_token_id", "x"),
        ("eos_token_id", [True]),
    ],
)
def test_bad_generation_defaults_are_named(with_generation, field, value):
    folder = with_generation({"do_sample": True, field: value})
    with pytest.raises(InputError, match=f"generation_config.json: {field} must be") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_what_the_checkpoint_asks_for_in_vain_is_said(with_generation):
    asked = {"repetition_penalty": 1.1, "num_beams": 1, "eos_token_id": [3, 4]}
    loaded = load_model(with_generation(asked))
    assert loaded.notes == (
        "note: the checkpoint asks for repetition_penalty 1.1, which is not supported: left out",
    )
    assert loaded.eos_ids == {3, 4}
