"""The report of tokenizers as a picture: a panel for each number, a colour for each tokenizer."""

from typing import TYPE_CHECKING, Any

from train.report_canvas import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "characters_per_token": "characters per token\n(more is better)",
    "tokens_per_word": "tokens per word\n(fewer is better)",
    "encode_megabytes_per_second": "encoding, MB/s\n(one thread)",
}
_GROUP_WIDTH = 0.8


def draw_report(rows: list[dict[str, Any]]) -> "Figure":
    """Bars in groups by language, with the value over each bar while there are few."""
    languages = list(dict.fromkeys(row["language"] for row in rows))
    tokenizers = list(dict.fromkeys(row["tokenizer"] for row in rows))
    values = {(row["language"], row["tokenizer"]): row for row in rows}
    figure, panels = new_figure(len(_PANELS), height=8.0)
    width = _GROUP_WIDTH / len(tokenizers)
    for axes, (name, label) in zip(panels, _PANELS.items(), strict=True):
        for place, tokenizer in enumerate(tokenizers):
            found = {
                group + (place + 0.5) * width - _GROUP_WIDTH / 2: value
                for group, language in enumerate(languages)
                if (value := values[language, tokenizer][name]) is not None
            }
            bars = axes.bar(
                list(found),
                list(found.values()),
                width * 0.92,
                label=tokenizer,
                color=COLOURS[place % len(COLOURS)],
            )
            if len(rows) <= 40:
                axes.bar_label(bars, fmt="%.2g", fontsize=6.5, padding=1)
        axes.set_ylabel(label)
        axes.grid(False, axis="x")
    panels[-1].set_xticks(range(len(languages)), languages)
    panels[0].legend(ncols=min(len(tokenizers), 4), loc="lower left", bbox_to_anchor=(0, 1.02))
    return figure
