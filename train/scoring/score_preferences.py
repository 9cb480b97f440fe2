"""Scores of people's preferences: each answer's, and how often the better one has the higher."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llama_jax.batch_files.json_lines import json_lines
from llama_jax.errors import InputError
from train.data.examples.preferences import RANKS, read_preference
from train.scoring.dialog_tokens import DialogTokens
from train.scoring.kept_scores import KeptScores
from train.scoring.ranking import Ranking
from train.scoring.refused import Refused
from train.scoring.scored_rows import ReadRow, scored_rows, write_line


def score_preferences(
    scorer: KeptScores,
    tokens: DialogTokens,
    path: Path,
    file: BinaryIO,
    *,
    on_error: str,
    quiet: bool,
) -> str:
    """Writes a line for each of `path`, and returns how many there are and how often the model
    ranks their answers as people did. Raises `InputError` naming the line and the field.

    Args:
      on_error: for lines that cannot be scored: `stop` raises, `skip` leaves them out.
    """
    refused = Refused(on_error)

    def read() -> Iterator[ReadRow]:
        for line in json_lines(path):
            try:
                preference = read_preference(line.fields)
                texts = tokens.of_preference(preference)
            except InputError as error:
                refused.add(f"{path}: line {line.number}: {error}")
                continue
            ranks = [answer.rank for answer in preference.answers]
            names = [name for name, rank in RANKS.items() if rank in ranks]
            row = (line.number, line.fields.get("category"), names)
            yield ReadRow(row, texts, line.num_bytes)

    ranking, count = Ranking(), 0
    for (number, category, names), scores in scored_rows(scorer, read(), path, quiet=quiet):
        by_name = dict(zip(names, scores, strict=True))
        ranking.add(by_name, category)
        fields = {"line": number} | ({} if category is None else {"category": category})
        write_line(file, fields | {"scores": by_name})
        count += 1
    if not count:
        raise InputError(f"{path}: has no lines{refused.said}")
    refused.tell()
    plural = "" if count == 1 else "s"
    return "\n".join([f"{count:,} preference{plural}{refused.said}", *ranking.lines()])
