"""A checkpoint with another tokenizer: rows are means that numpy and sentencepiece agree on."""

import dataclasses
import inspect
import json.decoder
import textwrap

import ml_dtypes
import numpy as np
import pytest
import sentencepiece
import tokenizers

from llama_jax.__main__ import main
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface import HuggingFaceSink
from llama_jax.checkpoints.interface import Assets
from llama_jax.checkpoints.retokenized_source import RetokenizedSource, pieces_of_tokens
from llama_jax.config import TINY
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from llama_jax.tokenizers.training.sentencepiece_to_huggingface import sentencepiece_to_huggingface
from llama_jax.tokenizers.training.sentencepiece_training import train_sentencepiece
from llama_jax.tokenizers.training.special_tokens import special_tokens
from llama_jax.tokenizers.training.words import count_words

OLD_SIZE, NEW_SIZE = 500, 620
OLD_TEXT = inspect.getsource(textwrap)
NEW_TEXT = inspect.getsource(json.decoder) + "ทé日" * 9


def tokenizer_files(text, size, own=()):
    model = train_sentencepiece(
        count_words(text),
        vocab_size=size,
        special_tokens=special_tokens(14, own=own),
        character_coverage=1.0,
    )
    return {
        "tokenizer.model": model,
        **sentencepiece_to_huggingface(model, chat_template=None),
    }


@pytest.fixture(scope="module")
def old_files():
    return tokenizer_files(OLD_TEXT, OLD_SIZE)


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    for name, content in tokenizer_files(NEW_TEXT, NEW_SIZE, own=["<|self|>"]).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def make_source(tmp_path, random_tensors, specs_of, old_files):
    def make(*, tied, dtype=np.float32, rows=OLD_SIZE):
        config = dataclasses.replace(TINY, vocab_size=rows, tied_embeddings=tied)
        tensors = random_tensors(config, dtype)
        files = {name: old_files[name] for name in old_files if name != "generation_config.json"}
        assets = Assets({**files, "LICENSE": b"as it was"}, {"eos_token_id": 1})
        sink = HuggingFaceSink(tmp_path / "source", config, specs_of(tensors), assets)
        for name, tensor in tensors.items():
            sink.write(name, tensor)
        sink.finish()
        return tmp_path / "source", tensors

    return make


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["retokenize", *map(str, arguments)])
    return stop.value.code


def expected_rows(old_model, new_model, old_rows):
    """By the library's own lists of pieces: equal pieces keep their rows, the rest are means."""
    old, new = (sentencepiece.SentencePieceProcessor(model_proto=m) for m in (old_model, new_model))
    rows = []
    for token_id in range(new.get_piece_size()):
        piece = new.id_to_piece(token_id)
        same = old.piece_to_id(piece)
        if new.is_byte(token_id):
            byte = bytes([int(piece[3:5], 16)])
            character = old.piece_to_id(byte.decode("ascii")) if byte[0] < 128 else 0
            ids = [character or same]
        elif same or new.is_unknown(token_id):  # `piece_to_id` says 0 for what there is not
            ids = [same]
        else:
            ids = old.encode(piece)
        rows.append(np.mean([old_rows[i].astype(np.float32) for i in ids], axis=0))
    return np.array(rows)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_rows_are_means(make_source, old_files, new_folder, tmp_path, tied, dtype, capsys):
    source, tensors = make_source(tied=tied, dtype=dtype, rows=OLD_SIZE + 12)
    destination = tmp_path / "out"
    assert not run(source, destination, "--tokenizer", new_folder, "--to", "hf", "--quiet")
    assert f"{OLD_SIZE:,} tokens to {NEW_SIZE:,}" in capsys.readouterr().out
    written = open_source(destination)
    assert written.config == dataclasses.replace(TINY, vocab_size=NEW_SIZE, tied_embeddings=tied)
    new_model = (new_folder / "tokenizer.model").read_bytes()
    for name in written.tensors:
        values = written.read(name)
        assert values.dtype == dtype
        if name in ("embedding", "head"):
            wanted = expected_rows(old_files["tokenizer.model"], new_model, tensors[name])
            # One rounding to the weight's dtype; sums of a few float32 in another order.
            np.testing.assert_allclose(
                values.astype(np.float32), wanted, rtol=2**-7 if dtype != np.float32 else 1e-6,
                atol=1e-7,
            )  # fmt: skip
        else:
            assert values.tobytes() == tensors[name].tobytes()
    assert ("head" in written.tensors) != tied
    assert (destination / "LICENSE").read_bytes() == b"as it was"
    assert (destination / "tokenizer.json").read_bytes() == (
        new_folder / "tokenizer.json"
    ).read_bytes()
    assert load_tokenizer(destination).eos_ids == load_tokenizer(new_folder).eos_ids


def test_special_tokens_keep_their_rows_by_name(old_files, new_folder, tmp_path):
    (tmp_path / "old.model").write_bytes(old_files["tokenizer.model"])
    old = SentencePieceTokenizer(tmp_path / "old.model")
    new = load_tokenizer(new_folder)
    pieces = pieces_of_tokens(old, new)
    for name, token_id in new.special_tokens.items():
        same = old.special_tokens.get(name)
        assert pieces[token_id] == (old.encode(name) if same is None else [same])
    assert len(pieces[new.special_tokens["<|self|>"]]) > 1
    # A character that the old one writes as bytes.
    (thai,) = new.encode("ท")
    assert pieces[thai] == old.encode("ท") and len(pieces[thai]) == 3


def test_the_same_tokenizer_changes_nothing(old_files, tmp_path):
    for name, content in old_files.items():
        (tmp_path / name).write_bytes(content)
    tokenizer = load_tokenizer(tmp_path)
    pieces = pieces_of_tokens(tokenizer, tokenizer)
    twice = {f"<0x{ord(c):02X}>" for c in map(chr, range(128))}
    library = sentencepiece.SentencePieceProcessor(model_proto=old_files["tokenizer.model"])
    for token_id, ids in enumerate(pieces):
        if token_id and library.id_to_piece(token_id) not in twice:
            assert ids == [token_id]


def test_what_the_old_tokenizer_cannot_write_has_the_mean_of_all_rows(make_source, new_folder):
    library = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    files = {"tokenizer.json": library.to_str().encode()}
    pieces = pieces_of_tokens(HuggingFaceTokenizer(files, place="here"), load_tokenizer(new_folder))
    new = load_tokenizer(new_folder)
    assert pieces[new.encode("ท")[0]] == []
    assert pieces[new.encode("a")[0]] == [0]
    source, tensors = make_source(tied=False)
    changed = RetokenizedSource(open_source(source), [[0, 1], []], assets=Assets({}, {}))
    rows = changed.read("head")
    np.testing.assert_allclose(rows[0], tensors["head"][:2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(rows[1], tensors["head"].mean(0), rtol=1e-5, atol=1e-7)
    assert changed.read("head", (slice(1, 2), slice(3))).tobytes() == rows[1:2, :3].tobytes()


def test_bad_input(make_source, new_folder, tmp_path, capsys):
    source, _ = make_source(tied=True, rows=OLD_SIZE - 1)
    assert run(source, tmp_path / "out", "--tokenizer", tmp_path / "nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert run(source, tmp_path / "out", "--tokenizer", new_folder) == 2
    assert "they do not belong together" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
