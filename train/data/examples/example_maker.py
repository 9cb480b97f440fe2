"""Lines to examples of one kind: what a worker process needs, and the three ways to make them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llama_jax.chat import ChatFormat, chat_format_for, read_chat_template
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer
from train.data.examples.answer_groups import group_example
from train.data.examples.chat_examples import dialog_example
from train.data.examples.dialogs import read_dialog
from train.data.examples.example import Example
from train.data.examples.example_row import room
from train.data.examples.preference_pairs import pair_example
from train.data.examples.preferences import read_preference
from train.data.examples.refused_example import RefusedExample
from train.data.manifest import RowKind


@dataclass(frozen=True)
class ExampleSettings:
    """All that an example depends on besides its line.

    Attributes:
      kind: `dialogs`, `pairs` or `groups`.
      tokenizer: a file or folder that `load_tokenizer` knows; chat templates are looked for there.
      chat_format: `auto`, `llama31` or `template`.
      today: the date, as in 2024-07-26, for templates that write it; None refuses them.
      row_length: T; an example that is longer than a row is refused.
      ignored: fields of a line that may be there and are not read.
      count_end_of_turn: of pairs, whether the token that ends the turn counts in the comparison.
      seed: of groups, of the order of the answers.
    """

    kind: RowKind
    tokenizer: str
    chat_format: str
    today: str | None
    row_length: int
    ignored: tuple[str, ...] = ()
    count_end_of_turn: bool = False
    seed: int = 0

    def load(self) -> tuple[Tokenizer, ChatFormat]:
        """Raises `InputError` if there is no such chat format, or if its template writes a date and
        none is given."""
        path = Path(self.tokenizer)
        folder = path if path.is_dir() else path.parent
        tokenizer = load_tokenizer(path)
        now = _moment(self.today)
        chat_format = chat_format_for(folder, tokenizer, name=self.chat_format, now=lambda: now)
        if chat_format is None:
            raise InputError(
                f"--tokenizer {path}: has no chat template, as a base model has none; choose "
                "--chat-format llama31, or put a chat_template.jinja beside it"
            )
        if chat_format.name == "template" and self.today is None:
            template, place = read_chat_template(folder)
            sources = template.values() if isinstance(template, dict) else [template]
            if any("strftime_now" in source for source in sources):
                raise InputError(
                    f"{place}: writes the date of the day into dialogs; say which with --today, "
                    "such as --today 2024-07-26, so that the data is the same on any day"
                )
        return tokenizer, chat_format


class ExampleMaker:
    """Makes the example of a line."""

    def __init__(self, settings: ExampleSettings) -> None:
        self._settings = settings
        self._tokenizer, self._chat_format = settings.load()
        self._special_ids = frozenset(self._tokenizer.special_tokens.values())
        self._room = room(settings.kind, row_length=settings.row_length)
        makers: dict[str, Callable[[Mapping[str, Any]], Example]] = {
            "dialogs": self._dialog,
            "pairs": self._pair,
            "groups": self._group,
        }
        self._make = makers[settings.kind]

    @property
    def vocab_size(self) -> int:
        """Every token is less."""
        return self._tokenizer.vocab_size

    def __call__(self, fields: Mapping[str, Any]) -> Example:
        """Raises `RefusedExample`, naming the field, if the line makes none that fits in a row."""
        example = self._make(fields)
        if len(example.tokens) > self._room:
            raise RefusedExample(
                "longer than a row",
                f"{len(example.tokens)} tokens, and a row of --row-length "
                f"{self._settings.row_length} has room for {self._room}",
            )
        return example

    def _dialog(self, fields: Mapping[str, Any]) -> Example:
        dialog = read_dialog(fields, ignored=self._settings.ignored)
        return dialog_example(dialog, self._chat_format)

    def _pair(self, fields: Mapping[str, Any]) -> Example:
        return pair_example(
            read_preference(fields, ignored=self._settings.ignored),
            self._chat_format,
            special_ids=self._special_ids,
            count_end_of_turn=self._settings.count_end_of_turn,
        )

    def _group(self, fields: Mapping[str, Any]) -> Example:
        preference = read_preference(fields, ignored=self._settings.ignored)
        return group_example(preference, self._chat_format, seed=self._settings.seed)


def _moment(today: str | None) -> datetime:
    try:
        return datetime.strptime(today, "%Y-%m-%d") if today is not None else datetime(1970, 1, 1)
    except ValueError:
        raise InputError(f"--today {today!r}: write the date as 2024-07-26") from None
