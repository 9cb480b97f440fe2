"""From files to rows: the right tokens, whatever the number of workers and interruptions."""

import os
import subprocess

import pytest

from llama_jax.__main__ import main
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from train.data import prepare as prepare_module
from train.data import work_units
from train.data.document_boundary import document_boundary
from train.data.packed_rows import PackedRows
from train.data.prepare import prepare

from .corpus import TEXTS, compressed, documents_of, files_of, jsonl, parquet, stream_of


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
    (tmp_path / "data" / "notes").mkdir()
    with pytest.raises(InputError, match="holds notes, which is no part of the data and would be"):
        prepare([str(corpus)], row_length=16, overwrite=True, **options)
    assert PackedRows(tmp_path / "data", row_length=8) and (tmp_path / "data" / "notes").is_dir()
    options["output"] = corpus
    with pytest.raises(InputError, match="holds something that is no prepared data"):
        prepare([f"{corpus}/a.jsonl"], row_length=8, overwrite=True, **options)
    assert len(list(corpus.iterdir())) == 5


def test_folders_above_the_output_are_made(corpus, tokenizer, tmp_path):
    options = {"tokenizer": tokenizer, "row_length": 16, "workers": 1}
    prepare([str(corpus)], output=tmp_path / "a/b/c", **options)
    assert len(documents_of(tmp_path / "a/b/c")) == 25
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["c"]


def test_documents_of_other_lengths_are_counted_and_left_out(
    corpus, tokenizer, tmp_path, small_units
):
    options = {"tokenizer": tokenizer, "row_length": 16, "workers": 1}
    prepare([str(corpus)], output=tmp_path / "all", **options)
    documents = documents_of(tmp_path / "all")
    lengths = sorted(len(document) + 2 for document in documents)  # BOS and EOS count
    middle = lengths[len(lengths) // 2]
    assert lengths[0] < middle < lengths[-1]
    short, _ = prepare([str(corpus)], output=tmp_path / "s", max_tokens=middle, **options)
    long, _ = prepare([str(corpus)], output=tmp_path / "l", min_tokens=middle + 1, **options)
    assert documents_of(tmp_path / "s") == [d for d in documents if len(d) + 2 <= middle]
    assert documents_of(tmp_path / "l") == [d for d in documents if len(d) + 2 > middle]
    assert short.num_documents == long.num_other_lengths > 0
    assert long.num_documents == short.num_other_lengths > 0
    assert (short.min_tokens, short.max_tokens) == (0, middle)
    assert (long.min_tokens, long.max_tokens) == (middle + 1, None)
    assert short.num_empty == long.num_empty == 4


def test_another_length_of_documents_is_another_argument(corpus, tokenizer, tmp_path, monkeypatch):
    options = {"tokenizer": tokenizer, "row_length": 16, "output": tmp_path / "data", "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_pack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare([str(corpus)], min_tokens=5, **options)
    with pytest.raises(InputError, match=r"begun with other arguments \(min_tokens, max_tokens\)"):
        prepare([str(corpus)], max_tokens=50, **options)
    manifest, _ = prepare([str(corpus)], min_tokens=5, **options)
    assert prepare([str(corpus)], min_tokens=5, **options)[0] == manifest  # is ready
    with pytest.raises(InputError, match="holds data prepared with other arguments"):
        prepare([str(corpus)], **options)


def test_a_filter_that_leaves_nothing_says_how_many_documents_there_were(
    corpus, tokenizer, tmp_path
):
    options = {"tokenizer": tokenizer, "row_length": 16, "output": tmp_path / "data", "workers": 1}
    with pytest.raises(InputError, match=r"4 empty texts, 0 damaged records, 25 of another length"):
        prepare([str(corpus)], min_tokens=10_000, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


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
    arguments += ["--min-tokens", "8"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert not stop.value.code and "21 documents" in out and "rows of 16" in out
    assert "4 empty texts, 1 damaged records, 4 of another length" in out
    assert "f.jsonl: line 1" in err
    with pytest.raises(SystemExit):
        main(["data", "prepare", "--help"])
    assert "Example: llama-jax data prepare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"row_length": 0}, "--row-length must be at least 1, not 0"),
        ({"workers": 0}, "--workers must be at least 1, not 0"),
        ({"min_tokens": -1}, "--min-tokens must be at least 0, not -1"),
        ({"max_tokens": 0}, "--max-tokens must be at least 1, not 0: otherwise no document"),
        ({"min_tokens": 9, "max_tokens": 8}, "--max-tokens must be at least 9, not 8"),
        ({"output": __file__}, "test_prepare.py: is a file; name a folder"),
        ({"output": f"{__file__}/a/b"}, "test_prepare.py is a file; name a folder"),
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
