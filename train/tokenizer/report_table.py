"""The report of tokenizers as a table: a row for each language and tokenizer."""

from typing import Any

_COLUMNS = (
    ("chars/token", "characters_per_token", "{:.2f}"),
    ("tokens/word", "tokens_per_word", "{:.2f}"),
    ("partial", "partial_token_rate", "{:.2%}"),
    ("round trip", "round_trip_rate", "{:.1%}"),
    ("MB/s", "encode_megabytes_per_second", "{:.2f}"),
)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the rows, 80 columns wide."""
    from rich.console import Console
    from rich.table import Table

    table = Table("language", "tokenizer", box=None)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    language = None
    for row in rows:
        numbers = (
            "-" if row[name] is None else shape.format(row[name]) for _, name, shape in _COLUMNS
        )
        table.add_row(row["language"] * (row["language"] != language), row["tokenizer"], *numbers)
        language = row["language"]
    Console().print(table)
