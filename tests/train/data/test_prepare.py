"""From files to rows: the right tokens, whatever the number of workers and interruptions."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from llama_jax.__main__ import main
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from train.data import prepare as prepare_module
from train.data import work_units
from train.data.document_boundary import document_boundary
from train.data.packed_rows import PackedRows
from train.data.prepare import prepare

from .corpus import TEXTS, command, compressed, documents_of, files_of, jsonl, parquet, stream_of


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A folder with a small tokenizer as SmolLM2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(TEXTS, trainer)
    built.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 300)
    monkeypatch.setattr(prepare_module, "TOKENS_PER_SHARD", 200)


@pytest.fixture
def corpus(tmp_path):
    """A folder with every kind of file; the texts of each in the order of the names."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl(TEXTS))
    (folder / "b.jsonl.gz").write_bytes(compressed(jsonl(TEXTS), "gz"))
    (folder / "c.jsonl.zst").write_bytes(compressed(jsonl(TEXTS), "zst"))
    (folder / "d.parquet").write_bytes(parquet(TEXTS, row_group_size=3))
    (folder / "e.txt").write_text("one file, one document")
    return folder


def test_rows_hold_the_documents_in_order_between_bos_and_eos(
    corpus, tokenizer, tmp_path, small_units
):
    output = tmp_path / "data"
    manifest, complaints = prepare(
        [str(corpus)], tokenizer=tokenizer, row_length=16, output=output, workers=1
    )
    loaded = load_tokenizer(tokenizer)
    expected = [*([text for text in TEXTS if text] * 4), "one file, one document"]
    assert documents_of(output) == [loaded.encode(text) for text in expected]
    assert [loaded.decode(ids) for ids in documents_of(output)] == expected
    assert (manifest.bos_id, manifest.eos_id) == (1, 0)
    assert manifest.num_documents == len(expected) and manifest.num_empty == 4
    assert manifest.num_tokens == len(stream_of(output)) and not complaints
    assert manifest.num_rows == len(PackedRows(output)) and len(manifest.shards) > 3
    assert manifest.tokenizer_sha256 == tokenizer_hash(loaded)
    assert [source.path for source in manifest.sources] == sorted(map(str, corpus.iterdir()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "data"]


def test_workers_and_units_do_not_show_in_the_result(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "TOKENS_PER_SHARD", 200)
    options = {"tokenizer": tokenizer, "row_length": 16}
    prepare([str(corpus)], output=tmp_path / "one", workers=1, **options)
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 200)
    for workers in (1, 3):
        prepare([str(corpus)], output=tmp_path / f"w{workers}", workers=workers, **options)
        assert files_of(tmp_path / f"w{workers}") == files_of(tmp_path / "one")


def test_damaged_records_stop_the_work_or_are_counted(corpus, tokenizer, tmp_path, small_units):
    with open(corpus / "a.jsonl", "ab") as file:
        file.write(b'{"text": 7}\n{"text"\n' + jsonl(["after"]))
    (corpus / "f.txt").write_bytes(b"caf\xe9")
    options = {"tokenizer": tokenizer, "row_length": 16, "output": tmp_path / "data", "workers": 1}
    with pytest.raises(InputError, match=r"a.jsonl: line 8: 'text' must be .*--on-error skip$"):
        prepare([str(corpus)], **options)
    assert not (tmp_path / "data").exists()
    manifest, complaints = prepare([str(corpus)], on_error="skip", **options)
    assert manifest.num_skipped == 3 == len(complaints)
    assert [complaint.split(": ")[1] for complaint in complaints[:2]] == ["line 8", "line 9"]
    assert "f.txt: not UTF-8" in complaints[2]
    assert load_tokenizer(tokenizer).encode("after") in documents_of(tmp_path / "data")


def test_units_that_skipped_a_record_are_no_good_to_a_run_that_may_not(
    corpus, tokenizer, tmp_path, small_units, monkeypatch
):
    with open(corpus / "a.jsonl", "ab") as file:
        file.write(b"damaged\n")
    options = {"tokenizer": tokenizer, "row_length": 16, "output": tmp_path / "data", "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_pack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare([str(corpus)], on_error="skip", **options)
    with pytest.raises(InputError, match="a.jsonl: line 8: not valid JSON"):
        prepare([str(corpus)], **options)


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_finished_units_and_shards_are_not_made_again(
    corpus, tokenizer, tmp_path, small_units, monkeypatch
):
    options = {"tokenizer": tokenizer, "row_length": 16, "output": tmp_path / "data", "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr("train.data.staging.write_manifest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare([str(corpus)], **options)
    with monkeypatch.context() as patch:
        patch.setattr("train.data.tokenized_unit.read_documents", interrupted)
        patch.setattr(prepare_module, "write_shard", interrupted)
        prepare([str(corpus)], **options)
        before = files_of(tmp_path / "data")
        assert prepare([str(corpus)], **options)[0].num_rows  # is ready: nothing is done
    prepare([str(corpus)], overwrite=True, **options)
    assert files_of(tmp_path / "data") == before


def test_unfinished_work_of_other_arguments_is_not_gone_on_with(
    corpus, tokenizer, tmp_path, small_units, monkeypatch
):
    options = {"tokenizer": tokenizer, "output": tmp_path / "data", "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_pack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare([str(corpus)], row_length=16, **options)
    with pytest.raises(InputError, match=r"other arguments \(row_length\).*--overwrite$"):
        prepare([str(corpus)], row_length=8, **options)
    os.utime(corpus / "a.jsonl", (0, 0))
    with pytest.raises(InputError, match=r"other arguments \(input files\)"):
        prepare([str(corpus)], row_length=16, **options)
    prepare([str(corpus)], row_length=8, overwrite=True, **options)
    assert len(documents_of(tmp_path / "data")) == 25
    assert not (tmp_path / ".data.preparing").exists()


def test_an_output_is_replaced_only_when_asked_and_only_data(corpus, tokenizer, tmp_path):
    options = {"tokenizer": tokenizer, "output": tmp_path / "data", "workers": 1}
    prepare([str(corpus)], row_length=16, **options)
    before = files_of(tmp_path / "data")
    with pytest.raises(InputError, match="other arguments or of other files.*--overwrite"):
        prepare([str(corpus)], row_length=8, **options)
    assert files_of(tmp_path / "data") == before
    prepare([str(corpus)], row_length=8, overwrite=True, **options)
    assert PackedRows(tmp_path / "data", row_length=8)
    options["output"] = corpus
    with pytest.raises(InputError, match="holds something that is no prepared data"):
        prepare([f"{corpus}/a.jsonl"], row_length=8, overwrite=True, **options)
    assert len(list(corpus.iterdir())) == 5


@pytest.mark.parametrize("content", [b"", jsonl([""]), jsonl(["", ""]) + b"\n"])
def test_a_corpus_without_text_is_an_error_and_leaves_nothing(tokenizer, tmp_path, content):
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"empty.jsonl: no document with a text in 1 files"):
        prepare(
            [f"{tmp_path}/empty.jsonl"],
            tokenizer=tokenizer,
            row_length=16,
            output=tmp_path / "data",
            workers=1,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_documents_may_begin_and_end_with_other_tokens_or_none(tokenizer, tmp_path):
    loaded = load_tokenizer(tokenizer)
    assert document_boundary(loaded) == (1, 0)
    assert document_boundary(loaded, bos="none", eos="<|im_end|>") == (None, 2)
    with pytest.raises(InputError, match="--eos '</s>': no special token.*<|endoftext|>"):
        document_boundary(loaded, eos="</s>")
    loaded.special_tokens = {"<|im_end|>": 2}
    assert document_boundary(loaded) == (1, 2)
    loaded.eos_ids = frozenset({1, 2})
    with pytest.raises(InputError, match="--eos: say which special token ends a document"):
        document_boundary(loaded)
    (tmp_path / "a.txt").write_text("to be")
    options = {"tokenizer": tokenizer, "row_length": 2, "bos": "none", "eos": "none", "workers": 1}
    prepare([f"{tmp_path}/a.txt"], output=tmp_path / "data", **options)
    assert stream_of(tmp_path / "data").tolist() == loaded.encode("to be")


@pytest.fixture
def long_corpus(tmp_path):
    """About 60 units of 2,000 bytes."""
    rng = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(600)]
    path = tmp_path / "long.jsonl"
    path.write_bytes(jsonl(texts))
    return path


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    long_corpus, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 2000)
    monkeypatch.setattr(prepare_module, "TOKENS_PER_SHARD", 1000)
    options = {"tokenizer": tokenizer, "row_length": 32, "workers": 1}
    prepare([str(long_corpus)], output=tmp_path / "whole", **options)
    # Without the pauses a unit is done before anyone can kill it.
    slow = "import train.data.tokenized_unit as t; import time; old = t.publish; "
    slow += "t.publish = lambda *paths: (time.sleep(0.005), old(*paths))"
    arguments = (str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32")
    arguments += ("--workers", "1", "--output", str(tmp_path / "data"))
    killed = command(tmp_path, *arguments, before=slow)
    rng = np.random.default_rng(1)
    units = tmp_path / ".data.preparing" / "units"
    for _ in range(3):
        wanted = len(list(units.glob("*.json"))) + 3
        process = subprocess.Popen(killed)
        while len(list(units.glob("*.json"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "data").exists()
    prepare([str(long_corpus)], output=tmp_path / "data", **options)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")
    assert not (tmp_path / ".data.preparing").exists()


def test_workers_end_with_a_killed_main_process(long_corpus, tokenizer, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    slow = command(
        tmp_path,
        *(str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32", "--workers", "2"),
        *("--output", str(tmp_path / "data")),
    )
    # A worker imports the program too, as __mp_main__: there it marks itself and takes its time.
    program = tmp_path / "program.py"
    program.write_text(
        program.read_text()
        + "elif __name__ == '__mp_main__':\n"
        + "    import os, pathlib, time\n"
        + f"    pathlib.Path({str(marks)!r}, str(os.getpid())).touch()\n"
        + "    import train.data.tokenized_unit as t\n"
        + "    old = t.publish\n"
        + "    t.publish = lambda *paths: (time.sleep(0.2), old(*paths))\n"
    )
    process = subprocess.Popen(slow, stderr=subprocess.DEVNULL)
    while not list((tmp_path / ".data.preparing" / "units").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = [int(path.name) for path in marks.iterdir()]
    assert workers and all(map(is_running, workers))
    again = subprocess.run(slow, capture_output=True, text=True)
    assert again.returncode == 2 and "another process is preparing it now" in again.stderr
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their main process"
        time.sleep(0.02)


def is_running(process_id):
    try:
        with open(f"/proc/{process_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_worker_is_one_line_and_the_work_can_go_on(long_corpus, tokenizer, tmp_path):
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "2"]
    program = command(tmp_path, *arguments)
    source = (tmp_path / "program.py").read_text()
    (tmp_path / "program.py").write_text(
        source
        + "elif __name__ == '__mp_main__':\n"
        + "    import os, signal\n"
        + "    import train.data.tokenized_unit as t\n"
        + "    t.publish = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "a worker process was killed" in line and "run the same command again" in line
    (tmp_path / "program.py").write_text(source)
    subprocess.run(program, check=True, capture_output=True)
    assert len(documents_of(tmp_path / "data")) == 600


def test_an_error_in_a_worker_is_one_line(long_corpus, tokenizer, tmp_path):
    with open(long_corpus, "ab") as file:
        file.write(b"damaged\n")
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "2"]
    run = subprocess.run(command(tmp_path, *arguments), capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "long.jsonl: line 601: not valid JSON" in line


@pytest.mark.parametrize("limit", [500, 30_000], ids=["tokenising", "packing"])
def test_a_full_disk_is_one_line_and_the_work_can_go_on(long_corpus, tokenizer, tmp_path, limit):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    arguments = [str(long_corpus), "--tokenizer", str(tokenizer), "--row-length", "32"]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "1"]
    limits = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, r.RLIM_INFINITY))"
    full = command(tmp_path, *arguments, before=limits)
    run = subprocess.run(full, capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    name = "unit-000000.tokens" if limit == 500 else "rows-000000.arrayrecord"
    assert name in line and "File too large" in line
    assert not (tmp_path / "data").exists()
    subprocess.run(command(tmp_path, *arguments), check=True, capture_output=True)
    assert len(documents_of(tmp_path / "data")) == 600


def test_the_command_says_what_it_made_and_what_it_left_out(corpus, tokenizer, tmp_path, capsys):
    (corpus / "f.jsonl").write_bytes(b"damaged\n")
    arguments = [
        "data",
        "prepare",
        str(corpus),
        "--tokenizer",
        str(tokenizer),
        "--row-length",
        "16",
    ]
    arguments += ["--output", str(tmp_path / "data"), "--workers", "1", "--on-error", "skip"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert not stop.value.code and "25 documents" in out and "rows of 16" in out
    assert "4 empty texts, 1 damaged records" in out and "f.jsonl: line 1" in err
    with pytest.raises(SystemExit):
        main(["data", "prepare", "--help"])
    assert "Example: llama-jax data prepare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"row_length": 0}, "--row-length must be at least 1, not 0"),
        ({"workers": 0}, "--workers must be at least 1, not 0"),
        ({"output": "nowhere/data"}, "nowhere is no folder"),
        ({"tokenizer": "nowhere"}, "nowhere: no such file"),
        ({"bos": "<s>"}, "--bos '<s>': no special token"),
    ],
)
def test_arguments_that_cannot_be_are_refused(corpus, tokenizer, tmp_path, options, complaint):
    given = {"tokenizer": tokenizer, "row_length": 8, "output": tmp_path / "data", "workers": 1}
    with pytest.raises(InputError, match=complaint):
        prepare([str(corpus)], **(given | options))


def test_workers_hold_no_jax():
    """Each would take a second to start and, on a machine with an accelerator, a piece of it."""
    import sys

    code = "import sys, train.data.prepare, train.data.workers; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
