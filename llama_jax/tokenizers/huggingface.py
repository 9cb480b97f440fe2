"""A Hugging Face tokenizer: `tokenizer.json`, run by the `tokenizers` library.

Beside it lie up to three files that say what the special tokens are for. `generation_config.json`
lists the ids at which generation stops (three for Llama 3.1, more than the one `eos_token`);
`tokenizer_config.json` and the older `special_tokens_map.json` name BOS and EOS. (The chat template
that lies there too is the chat room's.)

The library by default turns special tokens written in a text into their ids, and its
post-processor adds BOS: both are switched off here, as `interface.py` asks. So are truncation and
padding, which some published files carry from their training run.

Reference: https://huggingface.co/docs/tokenizers, transformers' tokenization_utils_tokenizers.py.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from llama_jax.json_file import parse_json
from llama_jax.tokenizers.boundary import check_ids, well_formed

CONFIG_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


class HuggingFaceTokenizer:
    """Tokenizer of a `tokenizer.json` (`Tokenizer` of interface.py).

    Attributes:
      vocab_size: the highest id plus one. A model may have more embedding rows, for alignment.
      bos_id: None if the files name no such token.
      eos_ids: of `generation_config.json`, or else of `eos_token`; empty if neither is there.
      special_tokens: the special tokens' texts -> ids.
    """

    def __init__(self, files: Mapping[str, bytes], *, place: str) -> None:
        """Args:
          files: `tokenizer.json` and those of `CONFIG_FILES` that exist, name -> content.
          place: where the files come from, for error messages.

        Raises `InputError` on a file that cannot be understood."""
        self._place = place
        self._definition = _decode_text(files["tokenizer.json"], f"{place}/tokenizer.json")
        tokenizer_config = _read_json(files, "tokenizer_config.json", place)
        tokens_map = _read_json(files, "special_tokens_map.json", place)
        generation = _read_json(files, "generation_config.json", place)
        roles = {
            role: text
            for role in _ROLES
            if (text := _token_text(tokenizer_config.get(role) or tokens_map.get(role), place))
        }
        self._declared_special = {
            *roles.values(),
            *_declared_special_tokens(tokenizer_config, place),
        }
        self._plain = self._build()
        self._plain.encode_special_tokens = True

        self.vocab_size = 1 + max(
            self._plain.get_vocab(with_added_tokens=True).values(), default=-1
        )
        self.bos_id = self._id_of_role(roles, "bos_token")
        eos_id = self._id_of_role(roles, "eos_token")
        self.eos_ids = _eos_ids(generation, eos_id, f"{place}/generation_config.json")
        self.special_tokens = {
            token.content: token_id
            for token_id, token in self._plain.get_added_tokens_decoder().items()
            if token.special
        }
        unknown_id = self._plain.token_to_id(roles.get("unk_token", ""))
        self._special_ids = frozenset(self.special_tokens.values())
        # The unknown token is what a text may rightly come to: it is no message header.
        self._forgeable_ids = self._special_ids - {unknown_id}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "HuggingFaceTokenizer":
        """Reads `folder`/tokenizer.json and what lies beside it."""
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise InputError(f"{folder}/tokenizer.json: no such file; give the checkpoint's folder")
        names = ("tokenizer.json", *CONFIG_FILES)
        paths = [folder / name for name in names if (folder / name).is_file()]
        return cls({path.name: path.read_bytes() for path in paths}, place=str(folder))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`, without BOS and EOS. Lone surrogates become U+FFFD."""
        text = well_formed(text)
        if allow_special:
            return self._special_aware.encode(text, add_special_tokens=False).ids
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if not self._forgeable_ids.isdisjoint(ids):
            # Only a model that looks whole words up in a vocabulary which lists its special tokens
            # (a unigram or word-level model) comes here; it has no plain spelling of them.
            raise InputError(
                f"{self._place}/tokenizer.json: cannot encode a special token written in the text "
                "as plain text; take it out of the text"
            )
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; `InputError` on an id outside the vocabulary."""
        check_ids(ids, vocab_size=self.vocab_size)
        if skip_special:
            ids = [token_id for token_id in ids if token_id not in self._special_ids]
        return self._plain.decode(list(ids), skip_special_tokens=False)

    def definition(self) -> dict[str, Any]:
        """What decides the ids, out of `tokenizer.json`. A library that writes the file again adds
        to `model` and to `added_tokens` switches that are off, and writes each merge as a list of
        two where it was a text with a space."""
        fields = parse_json(self._definition.encode(), f"{self._place}/tokenizer.json")
        model = {key: value for key, value in fields["model"].items() if value not in (None, False)}
        if "merges" in model:
            model["merges"] = [
                merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]
            ]
        return {
            "model": model,
            "normalizer": fields.get("normalizer"),
            "pre_tokenizer": fields.get("pre_tokenizer"),
            "added_tokens": [
                {key: value for key, value in token.items() if value is not False}
                for token in fields.get("added_tokens", [])
            ],
        }

    @cached_property
    def _special_aware(self) -> Any:
        """A second copy, which turns special tokens into ids. The switch is a property of the
        library's object; flipping it for one call would race with another thread's."""
        return self._build()

    def _build(self) -> Any:
        import tokenizers

        try:
            built = tokenizers.Tokenizer.from_str(self._definition)
        except Exception as error:  # the library raises bare Exception
            raise InputError(
                f"{self._place}/tokenizer.json: the tokenizers library cannot read it ({error}); "
                "download the file again"
            ) from error
        built.no_truncation()
        built.no_padding()
        # A file may hold a message header's token as an ordinary added token, which the library
        # would find in any text: what the configuration calls special is special.
        built.add_special_tokens(
            [
                tokenizers.AddedToken(text, special=True, normalized=False)
                for text in sorted(self._declared_special)
                if built.token_to_id(text) is not None
            ]
        )
        return built

    def _id_of_role(self, roles: Mapping[str, str], role: str) -> int | None:
        if role not in roles:
            return None
        token_id = self._plain.token_to_id(roles[role])
        if token_id is None:
            raise InputError(
                f"{self._place}: {role} is {roles[role]!r}, which tokenizer.json does not have; "
                "the files do not belong together"
            )
        return token_id


def _eos_ids(generation: Mapping[str, Any], eos_id: int | None, place: str) -> frozenset[int]:
    ids = generation.get("eos_token_id")
    if ids is None:
        return frozenset() if eos_id is None else frozenset({eos_id})
    ids = ids if isinstance(ids, list) else [ids]
    if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise InputError(f"{place}: eos_token_id must be a token id or a list of them, not {ids!r}")
    return frozenset(ids)


def _declared_special_tokens(tokenizer_config: Mapping[str, Any], place: str) -> set[str]:
    """Texts that `tokenizer_config.json` calls special, beyond the roles."""
    declared = [
        *_as_list(tokenizer_config.get("additional_special_tokens")),
        *_as_list(tokenizer_config.get("extra_special_tokens")),
        *(
            entry
            for entry in _as_list(tokenizer_config.get("added_tokens_decoder"))
            if isinstance(entry, dict) and entry.get("special")
        ),
    ]
    return {text for token in declared if (text := _token_text(token, place))}


def _as_list(value: Any) -> list[Any]:
    """These fields have been lists in some releases of transformers and objects in others."""
    if value is None:
        return []
    return list(value.values()) if isinstance(value, dict) else list(value)


def _token_text(token: Any, place: str) -> str | None:
    """A token is written as its text, or as an object with a field `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise InputError(f"{place}/tokenizer_config.json: {token!r} is not the text of a token")
    return text


def _read_json(files: Mapping[str, bytes], name: str, place: str) -> dict[str, Any]:
    """The object in a file of that name, empty if there is none."""
    return parse_json(files[name], f"{place}/{name}") if name in files else {}


def _decode_text(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 text ({error}); download it again") from error
