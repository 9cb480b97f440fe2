"""From files of dialogs and preferences to rows: all of them, whole, the same bytes each time."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from llama_jax.__main__ import main
from llama_jax.chat import chat_format_for, chat_format_hash
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from train.config import Source
from train.data import work_units
from train.data.examples import prepare_examples as module
from train.data.examples.prepare_examples import prepare_examples
from train.data.manifest import read_manifest
from train.data.mixture import Mixture
from train.data.packed_rows import PackedRows

from ..corpus import compressed, files_of
from .lines import (
    assistant,
    maker,
    random_dialogs,
    random_preferences,
    segments_of,
    settings,
    system,
    user,
)

LINES = {
    "dialogs": random_dialogs(120),
    "pairs": random_preferences(60),
    "groups": random_preferences(60),
}
BAD = [
    b"damaged",
    {"messages": [user("a")]},
    {"messages": [user("a"), user("b"), assistant("c")]},
    {"messages": [user("a"), assistant("")]},
    {"messages": [user("a"), assistant("be " * 200)]},
    b"",
    b'{"messages": "caf\xe9"}',
]


@pytest.fixture
def small(monkeypatch):
    """Many units and many shards."""
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 1500)
    monkeypatch.setattr(module, "WINDOW_TOKENS", 1500)


def sorted_segments(segments):
    return sorted(json.dumps(segment) for segment in segments)


@pytest.mark.parametrize("kind", LINES)
def test_every_example_is_in_the_rows_once_and_whole(chatml, tmp_path, write_lines, small, kind):
    row_length = 400
    path = write_lines("lines.jsonl", LINES[kind])
    manifest, complaints = prepare_examples(
        [str(path)],
        settings(chatml, kind, row_length=row_length, seed=3),
        output=tmp_path / "data",
        workers=1,
    )
    make = maker(chatml, kind, seed=3)
    examples = [make(line) for line in LINES[kind]]
    expected = [
        (example.tokens[start:stop].tolist(), [mask[start:stop].tolist() for mask in example.masks])
        for example in examples
        for start, stop in zip(example.starts, [*example.starts[1:], None], strict=True)
    ]
    assert sorted_segments(segments_of(tmp_path / "data")) == sorted_segments(expected)
    assert not complaints and manifest.kind == kind == manifest.examples.kind
    assert manifest.num_documents == len(examples) and len(manifest.shards) > 3
    assert manifest.num_tokens == sum(len(example.tokens) for example in examples)
    assert manifest.examples.num_targets == sum(int(e.masks[-1:].sum()) for e in examples)
    rows = PackedRows(tmp_path / "data")
    room = len(rows) * (row_length + (kind != "groups"))
    assert manifest.examples.fill_rate == manifest.num_tokens / room > 0.7
    if kind == "pairs":
        counts = [int(row.segment_ids.max()) // 2 for row in rows]
    if kind == "groups":
        counts = [int((row.answer_ends >= 0).sum()) for row in rows]
        assert all(row.answer_ends.max() < row_length for row in rows)
    assert manifest.slots == (0 if kind == "dialogs" else max(counts))
    chat_format = chat_format_for(chatml, load_tokenizer(chatml))
    assert manifest.examples.chat_format == "template"
    assert manifest.examples.chat_format_sha256 == chat_format_hash(chat_format)


def test_pairs_stay_in_one_row_chosen_first(chatml, tmp_path, write_lines, small):
    path = write_lines("lines.jsonl", LINES["pairs"])
    arguments = ([str(path)], settings(chatml, "pairs", row_length=400))
    prepare_examples(*arguments, output=tmp_path / "data", workers=1)
    tokenizer = load_tokenizer(chatml)
    seen = []
    for row in PackedRows(tmp_path / "data"):
        arrays = row.arrays()
        for pair in range(row.segment_ids.max() // 2):
            said = [
                tokenizer.decode(arrays["targets"][where & arrays["loss_mask"]].tolist())
                for where in (arrays["segment_ids"] == 2 * pair + k for k in (1, 2))
            ]
            seen.append(said)
    expected = [[line.get("edited", line["chosen"]), line["rejected"]] for line in LINES["pairs"]]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("kind", LINES)
def test_workers_and_units_do_not_show_in_the_result(
    chatml, tmp_path, write_lines, monkeypatch, kind
):
    monkeypatch.setattr(module, "WINDOW_TOKENS", 900)
    path = write_lines("lines.jsonl", LINES[kind])
    arguments = ([str(path)], settings(chatml, kind, row_length=160))
    prepare_examples(*arguments, output=tmp_path / "one", workers=1)
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 1000)
    for workers in (1, 2) if kind == "pairs" else (1,):
        prepare_examples(*arguments, output=tmp_path / f"w{workers}", workers=workers)
        assert files_of(tmp_path / f"w{workers}") == files_of(tmp_path / "one")


def test_bad_lines_stop_the_work_or_are_counted_by_reason(chatml, tmp_path, write_lines, small):
    path = write_lines("lines.jsonl", [*LINES["dialogs"], *BAD, LINES["dialogs"][0]])
    arguments = ([str(path)], settings(chatml, "dialogs", row_length=160))
    options = {"output": tmp_path / "data", "workers": 1}
    with pytest.raises(InputError, match=r"lines.jsonl: line 121: not valid JSON.*--on-error skip"):
        prepare_examples(*arguments, **options)
    assert not (tmp_path / "data").exists()
    manifest, complaints = prepare_examples(*arguments, on_error="skip", **options)
    assert manifest.examples.dropped == {
        "empty answer": 1,
        "longer than a row": 1,
        "no assistant turn": 1,
        "not UTF-8": 1,
        "not a JSON object": 1,
        "role order": 1,
    }
    assert manifest.num_skipped == 6 and manifest.num_documents == len(LINES["dialogs"]) + 1
    assert [complaint.split(": ")[1] for complaint in complaints] == [
        *("line 121", "line 122", "line 123", "line 124", "line 125", "line 127")
    ]
    assert "messages[1]: a message of user after one of user" in complaints[2]
    assert "a row of --row-length 160 has room for 161" in complaints[4]


def test_an_example_that_just_fits_is_taken(chatml, tmp_path, write_lines):
    path = write_lines("lines.jsonl", LINES["dialogs"][:1])
    n = len(maker(chatml, "dialogs")(LINES["dialogs"][0]).tokens)
    options = {"output": tmp_path / "data", "workers": 1}
    arguments = settings(chatml, "dialogs", row_length=n - 1)
    assert prepare_examples([str(path)], arguments, **options)[0].examples.fill_rate == 1
    arguments = settings(chatml, "dialogs", row_length=n - 2)
    with pytest.raises(InputError, match=f"line 1: {n} tokens, and a row .* room for {n - 1}"):
        prepare_examples([str(path)], arguments, **options, overwrite=True)


def test_nothing_left_is_an_error_that_says_why(chatml, tmp_path, write_lines):
    path = write_lines("lines.jsonl", BAD)
    with pytest.raises(InputError, match="no line of 1 files makes an example .*1 role order"):
        prepare_examples(
            [str(path)],
            settings(chatml, "dialogs"),
            output=tmp_path / "data",
            on_error="skip",
            workers=1,
        )
    assert [child.name for child in tmp_path.iterdir()] == ["lines.jsonl"]


def test_compressed_files_and_folders_in_order_and_no_others(chatml, tmp_path):
    folder = tmp_path / "chats"
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in LINES["dialogs"]).encode()
    (folder / "a.jsonl.gz").write_bytes(compressed(text, "gz"))
    (folder / "b.json.zst").write_bytes(compressed(text, "zst"))
    arguments = ([str(folder)], settings(chatml, "dialogs", row_length=160))
    manifest, _ = prepare_examples(*arguments, output=tmp_path / "data", workers=1)
    assert manifest.num_documents == 2 * len(LINES["dialogs"])
    (folder / "c.txt").write_text("x")
    with pytest.raises(InputError, match="c.txt: dialogs and preferences are read from .jsonl"):
        prepare_examples(*arguments, output=tmp_path / "data", workers=1)


def test_other_arguments_or_a_finished_output(chatml, tmp_path, write_lines):
    path = write_lines("lines.jsonl", LINES["pairs"])
    options = {"output": tmp_path / "data", "workers": 1}
    same = settings(chatml, "pairs", row_length=160)
    first, _ = prepare_examples([str(path)], same, **options)
    before = files_of(tmp_path / "data")
    assert prepare_examples([str(path)], same, **options)[0] == first  # nothing is done
    for other in (
        settings(chatml, "groups", row_length=160),
        settings(chatml, "pairs", row_length=160, count_end_of_turn=True),
        settings(chatml, "pairs", row_length=160, ignored=("x",)),
    ):
        with pytest.raises(InputError, match="prepared with other arguments.*--overwrite"):
            prepare_examples([str(path)], other, **options)
    assert files_of(tmp_path / "data") == before
    prepare_examples([str(path)], other, overwrite=True, **options)
    assert files_of(tmp_path / "data").keys() == before.keys()


def test_a_folder_without_a_template_and_a_template_with_a_date(
    tokenizer, chatml, tmp_path, write_lines
):
    path = write_lines("lines.jsonl", [{"messages": [system("x"), user("a"), assistant("b")]}])
    options = {"output": tmp_path / "data", "workers": 1}
    auto = settings(tokenizer, "dialogs", chat_format="auto")
    with pytest.raises(InputError, match="has no chat template.*--chat-format llama31"):
        prepare_examples([str(path)], auto, **options)
    dated = tmp_path / "dated"
    shutil.copytree(chatml, dated)
    template = (dated / "chat_template.jinja").read_text()
    (dated / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + template)
    with pytest.raises(InputError, match="writes the date.*--today 2024-07-26"):
        prepare_examples([str(path)], settings(dated, "dialogs"), **options)
    command = ["data", "dialogs", str(path), "--tokenizer", str(dated), "--row-length", "100"]
    command += ["--output", str(tmp_path / "data"), "--workers", "1", "--today"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "yesterday"])
    with pytest.raises(SystemExit, match="0"):
        main([*command, "2026-11-30", "--quiet"])
    ((tokens, _),) = segments_of(tmp_path / "data")
    assert load_tokenizer(dated).decode(tokens).startswith("30 Nov 2026")
    assert read_manifest(tmp_path / "data").examples.today == "2026-11-30"


def test_the_commands_report_what_they_made(chatml, tmp_path, write_lines, capsys):
    dialogs = write_lines("dialogs.jsonl", [*LINES["dialogs"], *BAD])
    preferences = write_lines("preferences.jsonl", LINES["pairs"])
    options = ["--tokenizer", str(chatml), "--row-length", "160", "--workers", "1"]
    for arguments, said in (
        (["dialogs", str(dialogs), "--on-error", "skip"], "120 dialogs, "),
        (["preferences", str(preferences), "--for", "dpo"], "60 pairs, "),
        (["preferences", str(preferences), "--for", "reward"], "60 groups, "),
    ):
        output = str(tmp_path / said.split()[1][:-1])
        with pytest.raises(SystemExit, match="0"):
            main(["data", *arguments, *options, "--output", output])
        out, err = capsys.readouterr()
        assert out.startswith(f"{output}: {said}") and "% full" in out
        if "dialogs" in said:
            assert "% of them with loss" in out and "1 role order" in out
            assert err.count("left out: ") == 6
    with pytest.raises(SystemExit, match="2"):
        main(["data", "preferences", str(preferences), *options, "--output", output])
    assert "--for" in capsys.readouterr().err
    both = ["--for", "reward", "--count-end-of-turn", "--output", output]
    with pytest.raises(SystemExit, match="2"):
        main(["data", "preferences", str(preferences), *options, *both])
    assert "--count-end-of-turn" in capsys.readouterr().err


def test_a_mixture_gives_rows_of_one_shape_and_of_one_kind(chatml, tmp_path, write_lines):
    long = [{**line, "chosen": "be " * 200} for line in LINES["pairs"][:6]]
    for name, lines in (("short", LINES["pairs"]), ("long", long)):
        path = write_lines(f"{name}.jsonl", lines)
        arguments = ([str(path)], settings(chatml, "pairs", row_length=400))
        prepare_examples(*arguments, output=tmp_path / name, workers=1)
    sources = tuple(Source(name, str(tmp_path / name), 0.5) for name in ("short", "long"))
    slots = [read_manifest(source.path).slots for source in sources]
    assert slots[0] > slots[1]
    mixture = Mixture(sources, row_length=400, seed=0)
    assert mixture.kind == "pairs"
    shapes = [{n: a.shape for n, a in mixture[i].arrays().items()} for i in range(8)]
    assert all(shape == shapes[0] for shape in shapes)
    assert all(rows.slots == slots[0] for rows in mixture.sources.values())
    groups = settings(chatml, "groups", row_length=400)
    prepare_examples([str(path)], groups, output=tmp_path / "groups", workers=1)
    with pytest.raises(InputError, match="one kind, and they are short of pairs, groups of groups"):
        Mixture((sources[0], Source("groups", str(tmp_path / "groups"), 1)), row_length=400, seed=0)


def test_damaged_rows_are_named(chatml, tmp_path, write_lines):
    path = write_lines("lines.jsonl", LINES["pairs"])
    arguments = ([str(path)], settings(chatml, "pairs", row_length=160))
    prepare_examples(*arguments, output=tmp_path / "data", workers=1)
    manifest = tmp_path / "data" / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["examples"]["kind"] = "dialogs"
    manifest.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="row 0 is damaged .2 masks and 0 answers are no dialogs"):
        PackedRows(tmp_path / "data")[0]
    with pytest.raises(InputError, match="rows of 160 tokens.*llama-jax data dialogs INPUT"):
        PackedRows(tmp_path / "data", row_length=8)
    fields["examples"]["surprise"] = 1
    manifest.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="surprise"):
        PackedRows(tmp_path / "data")


def test_the_data_hash_is_of_the_rows(chatml, tmp_path, write_lines):
    def data_hash(name, lines, **options):
        path = write_lines(f"{name}.jsonl", lines)
        arguments = ([str(path)], settings(chatml, "pairs", row_length=160, **options))
        return prepare_examples(*arguments, output=tmp_path / name, workers=1)[0].data_hash()

    one = data_hash("one", LINES["pairs"])
    assert one == data_hash("two", LINES["pairs"])
    assert one != data_hash("three", LINES["pairs"][1:])
    assert one != data_hash("four", LINES["pairs"], count_end_of_turn=True)


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    chatml, tmp_path, write_lines, monkeypatch
):
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 1500)
    monkeypatch.setattr(module, "WINDOW_TOKENS", 900)
    path = write_lines("lines.jsonl", random_preferences(200))
    arguments = ([str(path)], settings(chatml, "pairs", row_length=160))
    prepare_examples(*arguments, output=tmp_path / "whole", workers=1)
    program = tmp_path / "program.py"
    # It ends itself with SIGKILL when the given number of files have got their names.
    program.write_text(
        "import os, signal, sys\n"
        "from llama_jax.__main__ import main\n"
        "import llama_jax.whole_file as atomic, train.data.work_units as work_units\n"
        "left, publish = [int(sys.argv.pop(1))], atomic.publish\n"
        "def counted(*paths):\n"
        "    publish(*paths)\n"
        "    left[0] -= 1\n"
        "    if not left[0]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.publish = counted\n"
        "import train.data.examples.prepare_examples as prepare_examples\n"
        "work_units.MIN_UNIT_BYTES, prepare_examples.WINDOW_TOKENS = 1500, 900\n"
        "main()\n"
    )
    command = [sys.executable, str(program), "data", "preferences", str(path), "--for", "dpo"]
    command += ["--chat-format", "template", "--tokenizer", str(chatml), "--row-length", "160"]
    command += ["--workers", "1", "--output", str(tmp_path / "data")]
    num_units = len(work_units.plan_units(module.find_files([str(path)])))
    staging = tmp_path / ".data.preparing"
    for wanted in ("no unit", "half of the units", "two shards"):
        missing = num_units - len(list((staging / "units").glob("*.json")))
        files = {
            "no unit": 2,
            "half of the units": 3 * num_units // 2,
            "two shards": 3 * missing + 2,
        }
        run = subprocess.run([*command[:2], str(files[wanted]), *command[2:]])
        assert run.returncode == -9 and not (tmp_path / "data").exists()
    shards = list((staging / "data").glob("*.arrayrecord"))
    assert len(shards) == 2 < len(read_manifest(tmp_path / "whole").shards)
    prepare_examples(*arguments, output=tmp_path / "data", workers=1)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")
    assert not (tmp_path / ".data.preparing").exists()


def test_rows_become_batches(chatml, tmp_path, write_lines):
    path = write_lines("lines.jsonl", LINES["groups"])
    arguments = ([str(path)], settings(chatml, "groups", row_length=160))
    prepare_examples(*arguments, output=tmp_path / "data", workers=1)
    mixture = Mixture((Source("groups", str(tmp_path / "data"), 1),), row_length=160, seed=0)
    rows = [mixture[index].arrays() for index in range(4)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    assert batch["tokens"].shape == (4, 160)
    slots = mixture.sources["groups"].slots
    assert batch["answer_ends"].shape == (4, slots) and slots > 2
