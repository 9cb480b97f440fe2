"""Lines to examples of one kind: the three ways to make them."""

from collections.abc import Callable, Mapping
from typing import Any

from train.data.examples.answer_groups import group_example
from train.data.examples.chat_examples import dialog_example
from train.data.examples.dialogs import read_dialog
from train.data.examples.example import Example
from train.data.examples.example_row import room
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.preference_pairs import pair_example
from train.data.examples.preferences import read_preference
from train.data.examples.refused_example import RefusedExample


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
