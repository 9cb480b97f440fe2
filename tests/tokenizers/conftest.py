"""Texts and tokenizer files for the tokenizer tests. Nothing is downloaded: the small tokenizers
are trained here, Meta's file comes from the optional package `llama-models`."""

import base64
import itertools
import json
from pathlib import Path

import pytest

from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31 import Llama31Tokenizer
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer

EIGHT_LANGUAGES = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "German": "Müßiggang ist aller Laster Anfang, sagt man im Süden größtenteils.",
    "French": "Où êtes-vous allés, là-bas ? L'été, c'était déjà l'œuvre d'un rêve.",
    "Italian": "Perché la città è così bella? Non c'è più niente da dire, però.",
    "Portuguese": "Não há razão: a educação é um direito, e o coração também.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Spanish": "¿Cuántos años tenía el niño? ¡Mañana lo sabrá el pingüino!",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}

OTHER_TEXTS = {
    "empty": "",
    "code": "def f(x: int) -> int:\r\n\tif x  <=  1:\n        return 1_0\n\n\n    return x*f(x)",
    "numbers": "1 12 123 1234 12345678, 3.14159  42",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈 👍🏽 \U0001faf1🏿‍\U0001faf2🏻 i'm SURE you'LL like it 🎉🎉🎉",
    "CJK": "日本語の文章と中文的句子、그리고 한국어.",
    "spaces": " a  b   c \t d\n e\r\n\r\n   ",
    "odd characters": "\x00\x01\x7f\u200b\u2028\ufeff\ufffd\U0010ffff e\u0301 ﬁ Ǆ",
    "special tokens": "<|begin_of_text|><|eot_id|> <|im_start|>user\n<|im_end|></s><s><unk>",
}

TEXTS = {**EIGHT_LANGUAGES, **OTHER_TEXTS}


@pytest.fixture(params=TEXTS.values(), ids=TEXTS.keys())
def text(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def meta_rank_file() -> Path:
    """Meta's `tokenizer.model` of Llama 3.1."""
    llama_models = pytest.importorskip("llama_models")
    return Path(llama_models.__file__).parent / "llama3" / "tokenizer.model"


@pytest.fixture(scope="session")
def rank_lines() -> list[bytes]:
    """A rank file of Llama 3's size that anyone may have: the bytes, all pairs, some triples."""
    singles = [bytes([byte]) for byte in range(256)]
    pairs = [left + right for left, right in itertools.product(singles, repeat=2)]
    triples = (pair + single for pair, single in itertools.product(pairs, singles))
    tokens = [*singles, *pairs, *itertools.islice(triples, 128_000 - 256 - 65_536)]
    return [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]


@pytest.fixture(scope="session")
def rank_file(rank_lines, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "tokenizer.model"
    path.write_bytes(b"".join(rank_lines))
    return path


SMOLLM_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def smollm_json() -> bytes:
    """A small `tokenizer.json` built as SmolLM2's: first the special ids, digits alone."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SMOLLM_SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    return tokenizer.to_str().encode("utf-8")


@pytest.fixture
def smollm_folder(smollm_json, tmp_path) -> Path:
    """A folder as SmolLM2-Instruct's."""
    (tmp_path / "tokenizer.json").write_bytes(smollm_json)
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "chat_template": "{{ messages }}",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory) -> Path:
    """A small SentencePiece model with Llama 2's options."""
    import sentencepiece

    path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(training_text()),
            model_writer=file,
            model_type="bpe",
            vocab_size=600,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            minloglevel=2,
        )
    return path


def training_text() -> list[str]:
    return [*EIGHT_LANGUAGES.values(), "the tokens of the text of the test"] * 4


@pytest.fixture(scope="session")
def byte_fallback_tokenizer():
    """A `tokenizer.json` as Llama 2's: SentencePiece's pieces in the `tokenizers` library, which
    turns a whole run of byte tokens into U+FFFD as long as the run is not complete."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁theab"]
    definition = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": token_id,
                "content": pieces[token_id],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token_id in range(3)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "vocab": {piece: token_id for token_id, piece in enumerate(pieces)},
            "merges": [],
        },
    }
    return HuggingFaceTokenizer({"tokenizer.json": json.dumps(definition).encode()}, place="here")


@pytest.fixture(scope="session")
def tokenizers(rank_file, smollm_json, sentencepiece_model, byte_fallback_tokenizer):
    return {
        "llama31": Llama31Tokenizer(rank_file),
        "byte level": HuggingFaceTokenizer({"tokenizer.json": smollm_json}, place="here"),
        "sentencepiece": SentencePieceTokenizer(sentencepiece_model),
        "byte fallback": byte_fallback_tokenizer,
    }
