"""All that an example depends on besides its line: what a worker process is given."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llama_jax.chat import ChatFormat, chat_format_for, read_chat_template
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer
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


def _moment(today: str | None) -> datetime:
    try:
        return datetime.strptime(today, "%Y-%m-%d") if today is not None else datetime(1970, 1, 1)
    except ValueError:
        raise InputError(f"--today {today!r}: write the date as 2024-07-26") from None
