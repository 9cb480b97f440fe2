"""Llama 3.1's own tokenizer: the `tokenizer.model` that Meta publishes, read with tiktoken.

The file holds 128,000 byte-pair ranks; the 256 special tokens are not in it but follow it, ids
128,000 to 128,255. Their names here are Meta's. (Hugging Face's file for 3.1 calls 128005
`<|reserved_special_token_2|>` and 128011 `<|reserved_special_token_3|>`; the ids mean the same.)
Only files of exactly 128,000 ranks are taken: Llama 4's and OpenAI's rank files look alike but
need another splitting pattern and other special tokens, and would give wrong ids in silence.

Reference: llama_models/llama3/tokenizer.py in https://github.com/meta-llama/llama-models; the ids
are tested equal to it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers.boundary import check_ids
from llama_jax.tokenizers.rank_file import read_rank_file

NUM_RANKS = 128_000
NUM_SPECIAL_TOKENS = 256

# How text is cut into words before bytes are merged; a token never spans two words.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

NAMED_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
)

SPECIAL_TOKENS: dict[str, int] = {
    token: NUM_RANKS + index
    for index, token in enumerate(
        (
            *NAMED_SPECIAL_TOKENS,
            *(
                f"<|reserved_special_token_{number}|>"
                for number in range(2, 2 + NUM_SPECIAL_TOKENS - len(NAMED_SPECIAL_TOKENS))
            ),
        )
    )
}

# Meta cuts long text before tiktoken sees it, since tiktoken's regular expression engine fails on
# very long input. The cuts can fall inside a token, so they are part of what the ids are.
MAX_SLICE_CHARS = 400_000
MAX_RUN_CHARS = 25_000

# A look-behind pins each match to the start of its run, which keeps the search linear. Python's \s
# is `str.isspace`, which is what Meta's code asks.
_LONG_RUN = re.compile(
    rf"(?<!\S)\S{{{MAX_RUN_CHARS + 1},}}|(?<!\s)\s{{{MAX_RUN_CHARS + 1},}}",
)


class Llama31Tokenizer:
    """Byte-pair tokenizer of Llama 3, 3.1, 3.2 and 3.3 (`Tokenizer` of interface.py).

    Attributes:
      vocab_size: 128,256.
      bos_id: 128000, `<|begin_of_text|>`.
      eos_ids: 128001 `<|end_of_text|>`, 128008 `<|eom_id|>`, 128009 `<|eot_id|>`.
      special_tokens: the 256 special tokens' texts -> ids.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the rank file `path`; `InputError` names the file and the line at fault."""
        import tiktoken

        path = Path(path)
        self._ranks = ranks = read_rank_file(path)
        if len(ranks) != NUM_RANKS:
            raise InputError(
                f"{path}: holds {len(ranks)} ranks, Llama 3's holds {NUM_RANKS}; give Llama 3's "
                "tokenizer.model, or download it again if it was cut off"
            )
        self._encoding = tiktoken.Encoding(
            name=path.name,
            pat_str=SPLIT_PATTERN,
            mergeable_ranks=ranks,
            special_tokens=SPECIAL_TOKENS,
        )
        self.vocab_size = NUM_RANKS + NUM_SPECIAL_TOKENS
        self.special_tokens = dict(SPECIAL_TOKENS)
        self.bos_id = SPECIAL_TOKENS["<|begin_of_text|>"]
        self.eos_ids = frozenset(
            SPECIAL_TOKENS[token] for token in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
        )

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text` as Meta's tokenizer gives them, without BOS and EOS."""
        ids: list[int] = []
        for part in _cut_for_tiktoken(text):
            if allow_special:
                ids += self._encoding.encode(part, allowed_special="all")
            else:
                ids += self._encoding.encode_ordinary(part)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; `InputError` on an id outside the vocabulary."""
        check_ids(ids, vocab_size=self.vocab_size)
        if skip_special:
            ids = [token_id for token_id in ids if token_id < NUM_RANKS]
        return self._encoding.decode(list(ids), errors="replace")

    def definition(self) -> dict[str, object]:
        """The tokens' bytes in hexadecimal, by rank. All else is the same for every file."""
        return {"ranks": [token.hex() for token in self._ranks], "pattern": SPLIT_PATTERN}


def _cut_for_tiktoken(text: str) -> Iterator[str]:
    """Parts of `text`, each at most 400,000 characters long and without a run of more than 25,000
    consecutive spaces or consecutive non-spaces."""
    for slice_start in range(0, len(text), MAX_SLICE_CHARS):
        piece = text[slice_start : slice_start + MAX_SLICE_CHARS]
        if len(piece) <= MAX_RUN_CHARS:  # most texts, which need not be searched
            yield piece
            continue
        part_start = 0
        for run in _LONG_RUN.finditer(piece):
            for cut in range(run.start() + MAX_RUN_CHARS, run.end(), MAX_RUN_CHARS):
                yield piece[part_start:cut]
                part_start = cut
        yield piece[part_start:]
