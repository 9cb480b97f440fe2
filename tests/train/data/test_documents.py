"""Every kind of corpus file gives its documents; every damage is one line that names its place."""

import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import InputError
from train.data import work_units
from train.data.corpus_files import find_files
from train.data.documents import read_documents
from train.data.work_units import plan_units

from .corpus import TEXTS, compressed, jsonl, parquet


def read(path, *, text_field="text", inputs=None):
    pieces = [piece for unit in plan_units(find_files(inputs or [str(path)])) for piece in unit]
    return [record for piece in pieces for record in read_documents(piece, text_field=text_field)]


def texts(records):
    return [record.text for record in records]


def complaint(path, **options):
    (record,) = [record for record in read(path, **options) if record.complaint]
    assert record.text is None and "\n" not in record.complaint
    return record.complaint


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "json.zst", "JSONL.GZ"])
def test_each_line_of_jsonl_is_a_document(tmp_path, ending):
    path = tmp_path / f"corpus.{ending}"
    compression = ending.lower().partition(".")[2]
    path.write_bytes(compressed(jsonl(TEXTS, "body"), compression))
    records = read(path, text_field="body")
    assert texts(records) == TEXTS
    assert sum(record.num_bytes for record in records) == path.stat().st_size


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "txt.zst"])
def test_a_text_file_is_one_document(tmp_path, ending):
    path = tmp_path / f"corpus.{ending}"
    content = "\ufeffone\r\n\r\ntwo\n".encode()
    path.write_bytes(compressed(content, ending[4:]))
    assert texts(read(path)) == ["one\r\n\r\ntwo\n"]


@pytest.mark.parametrize("options", [{}, {"row_group_size": 2}, {"compression": "zstd"}])
def test_each_row_of_parquet_is_a_document(tmp_path, options):
    path = tmp_path / "corpus.parquet"
    path.write_bytes(parquet(TEXTS, "body", **options))
    assert texts(read(path, text_field="body")) == TEXTS


def test_several_frames_and_members_are_one_file(tmp_path):
    for ending in ("gz", "zst"):
        path = tmp_path / f"corpus.jsonl.{ending}"
        path.write_bytes(compressed(jsonl(TEXTS), ending) + compressed(jsonl(["last"]), ending))
        assert texts(read(path)) == [*TEXTS, "last"]


def test_empty_lines_and_a_missing_last_line_feed_are_nothing_special(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + jsonl(["a"]) + b"\n \r\n" + jsonl(["b"]).rstrip())
    assert texts(read(path)) == ["a", "b"]


@settings(max_examples=30)
@given(lines=st.lists(st.text(max_size=30), max_size=20), unit_bytes=st.integers(1, 90))
def test_a_file_cut_anywhere_gives_each_line_once_with_its_number(
    lines, unit_bytes, tmp_path_factory
):
    path = tmp_path_factory.mktemp("cut") / "corpus.jsonl"
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in lines)
    path.write_text(content + "damaged\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_units, "MIN_UNIT_BYTES", unit_bytes)
        records = read(path)
    assert texts(records) == [*lines, None]
    assert f"corpus.jsonl: line {len(lines) + 1}: not valid JSON" in records[-1].complaint
    assert len(plan_units(find_files([str(path)]))) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut o', "not valid JSON"),
        (b'{"body": "x"}', r"no field 'text' \(it has body\)"),
        (b"{}", r"no field 'text' \(it has none\)"),
        (b'{"text": 7}', "'text' must be a text, not 7"),
        (b'{"text": null}', "must be a text, not None"),
        (b'["text"]', "a JSON object must be here"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\x00\x01", "not valid JSON"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path, line, reason, ending):
    path = tmp_path / f"corpus.{ending}"
    content = jsonl(["a", "b"]) + line + b"\n" + jsonl(["c"])
    path.write_bytes(compressed(content, ending[6:]))
    assert texts(read(path)) == ["a", "b", None, "c"]
    assert re.search(rf"corpus.{ending}: line 3: .*{reason}", complaint(path))


def test_a_damaged_row_of_parquet_is_named(tmp_path):
    path = tmp_path / "corpus.parquet"
    path.write_bytes(parquet(["a", None, "c"], row_group_size=1))
    assert texts(read(path)) == ["a", None, "c"]
    assert "corpus.parquet: row 2: 'text' must be a text, not None" in complaint(path)
    path.write_bytes(parquet([b"a", b"b"]))
    assert "row 1: 'text' must be a text, not b'a'" in read(path)[0].complaint


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"caf\xe9")
    assert "corpus.txt: not UTF-8 text" in complaint(path)


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut off", "last byte", "empty", "other", "flipped"])
def test_a_compressed_file_that_is_cut_off_or_damaged_is_an_error(tmp_path, kind, ending, damage):
    whole = compressed(jsonl(TEXTS * 50), ending)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    content = {
        "cut off": whole + whole[: len(whole) // 2],
        "last byte": whole[:-1],
        "empty": b"",
        "other": b"plain text that is not compressed\n" * 9,
        "flipped": bytes(flipped),
    }[damage]
    path = tmp_path / f"corpus.{kind}.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"corpus.{kind}.{ending}: damaged or cut off.*again$"):
        read(path)


def test_parquet_that_is_none_or_damaged_or_lacks_the_column_is_an_error(tmp_path):
    path = tmp_path / "corpus.parquet"
    whole = parquet(TEXTS * 100, compression="none", use_dictionary=False)
    for content in (b"", b"plain", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="corpus.parquet: is no readable Parquet file"):
            read(path)
    half = len(whole) // 2  # within the column of texts
    path.write_bytes(whole[:half] + b"\xff" * 4000 + whole[half + 4000 :])
    with pytest.raises(InputError, match="corpus.parquet: damaged after row"):
        read(path)
    checked = bytearray(parquet(TEXTS * 100, write_page_checksum=True, compression="none"))
    checked[checked.index(b"question")] ^= 1  # a text that is another text: only a checksum tells
    path.write_bytes(checked)
    with pytest.raises(InputError, match="corpus.parquet: damaged after row.*CRC"):
        read(path)
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"corpus.parquet: no column 'body' \(it has id, text\)"):
        read(path, text_field="body")


def test_folders_and_patterns_give_their_files_by_name(tmp_path):
    for name in ("b.jsonl", "a/z.txt", "a/.hidden.txt", "_SUCCESS", "c.jsonl.gz", "_logs/x.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    names = [file.path.removeprefix(f"{tmp_path}/") for file in find_files([str(tmp_path)])]
    assert names == ["a/z.txt", "b.jsonl", "c.jsonl.gz"]
    pattern = [file.path for file in find_files([f"{tmp_path}/**/*.jsonl*"])]
    assert [path.removeprefix(f"{tmp_path}/") for path in pattern] == ["b.jsonl", "c.jsonl.gz"]


def test_inputs_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match="give at least one input"):
        find_files([])
    with pytest.raises(InputError, match="nowhere: there is no such file"):
        find_files([str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="holds no file"):
        find_files([str(tmp_path)])
    one = tmp_path / "one.jsonl"
    one.write_text("")
    (tmp_path / "link.jsonl").symlink_to(one)
    with pytest.raises(InputError, match="one.jsonl: is given twice"):
        find_files([str(one), f"{tmp_path}/o*"])
    with pytest.raises(InputError, match="link.jsonl: is given twice and again as .*one.jsonl"):
        find_files([str(tmp_path)])
    for name in ("notes.doc", "noending", "x.parquet.gz", "archive.zip"):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=f"{name}: no known kind of file by its ending"):
            find_files([str(tmp_path / name)])
    (tmp_path / "link.jsonl").unlink()
    with pytest.raises(InputError, match="archive.zip: no known kind"):
        find_files([str(tmp_path)])


def test_small_files_share_a_unit_and_large_ones_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(work_units, "MIN_UNIT_BYTES", 100)
    for number in range(10):
        (tmp_path / f"small{number}.txt").write_text("x" * 25)
    (tmp_path / "large.jsonl").write_text("x" * 350)
    (tmp_path / "many.parquet").write_bytes(parquet(["x"] * 4, row_group_size=1))
    units = plan_units(find_files([str(tmp_path)]))
    assert [len(unit) for unit in units] == [1, 1, 1, 2, 1, 1, 1, 4, 4, 2]
    assert [piece[1:] for unit in units[:4] for piece in unit][:4] == [
        (0, 100, 100),
        (100, 200, 100),
        (200, 300, 100),
        (300, 350, 50),
    ]
