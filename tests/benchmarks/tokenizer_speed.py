"""Whether our tokenizers cost more than the libraries they call: processor time on the same texts.

    python tests/benchmarks/tokenizer_speed.py CORPUS TOKENIZER

CORPUS is what tokenizer_corpus.py makes, TOKENIZER what `llama-jax tokenizer train` made of it.
Llama 3.1's tokenizer is the one in the package llama-models. Texts have 8,000 characters, of all
languages in turn. Results go to tests/benchmarks/results/tokenizer_speed.json.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import llama_models
import sentencepiece
import tiktoken
import tokenizers

from llama_jax.machine_description import describe_machine
from llama_jax.tokenizers.huggingface import HuggingFaceTokenizer
from llama_jax.tokenizers.llama31 import SPECIAL_TOKENS, SPLIT_PATTERN, Llama31Tokenizer
from llama_jax.tokenizers.rank_file import read_rank_file
from llama_jax.tokenizers.sentencepiece import SentencePieceTokenizer

RESULTS = Path(__file__).parent / "results" / "tokenizer_speed.json"
TEXT_CHARACTERS = 8_000
TEXTS_PER_LANGUAGE = 12
ROUNDS = 7


def main() -> None:
    corpus, folder = map(Path, sys.argv[1:])
    texts = []
    for path in sorted((corpus / "train").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        starts = range(0, len(text), max(len(text) // TEXTS_PER_LANGUAGE, 1))
        texts += [text[start : start + TEXT_CHARACTERS] for start in starts][:TEXTS_PER_LANGUAGE]
    rank_file = Path(llama_models.__file__).parent / "llama3" / "tokenizer.model"
    tiktoken_encoding = tiktoken.Encoding(
        "llama31",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=read_rank_file(rank_file),
        special_tokens=SPECIAL_TOKENS,
    )
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    pairs = {
        "llama31, tiktoken": (
            Llama31Tokenizer(rank_file).encode,
            tiktoken_encoding.encode_ordinary,
        ),
        "32k, tokenizers": (
            HuggingFaceTokenizer.from_folder(folder).encode,
            lambda text: library.encode(text, add_special_tokens=False).ids,
        ),
        "32k, sentencepiece": (
            SentencePieceTokenizer(folder / "tokenizer.model").encode,
            sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode,
        ),
    }
    num_bytes = sum(len(text.encode()) for text in texts)
    rows = {}
    for name, (ours, theirs) in pairs.items():
        assert all(ours(text) == theirs(text) for text in texts), name
        seconds = {"ours": [], "library": []}
        # Turn about, so that what disturbs the machine disturbs both.
        for _, (side, encode) in itertools.product(
            range(ROUNDS), (("ours", ours), ("library", theirs))
        ):
            seconds[side].append(processor_seconds(encode, texts))
        median = {side: statistics.median(values) for side, values in seconds.items()}
        rows[name] = {
            **{f"{side}_megabytes_per_second": num_bytes / 1e6 / s for side, s in median.items()},
            "ours_over_library_time": median["ours"] / median["library"],
        }
        print(name, rows[name])
    result = {
        "command": "python tests/benchmarks/tokenizer_speed.py CORPUS TOKENIZER",
        "num_texts": len(texts),
        "num_bytes": num_bytes,
        "time": f"processor time of one thread, median of {ROUNDS}",
        "rows": rows,
        "machine": describe_machine(["tiktoken", "tokenizers", "sentencepiece"]),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def processor_seconds(encode: Callable[[str], list[int]], texts: list[str]) -> float:
    start = time.thread_time()
    for text in texts:
        encode(text)
    return time.thread_time() - start


if __name__ == "__main__":
    main()
