"""What came of a job of a guard, in lines."""

import json
from collections import Counter
from pathlib import Path


def verdict_counts(output: Path, reason: str) -> list[str]:
    """How many rows of `output` are unsafe, and why, most often first.

    Args:
      reason: the field that says why, a text or a list of them.
    """
    reasons: Counter[str] = Counter()
    num_rows = num_unsafe = num_problems = 0
    with open(output, encoding="utf-8") as file:
        for line in file:
            fields = json.loads(line)
            num_rows += 1
            num_problems += "problem" in fields
            if fields["verdict"] == "unsafe":
                num_unsafe += 1
                found = fields[reason]
                reasons.update([found] if isinstance(found, str) else found)
    counts = ", ".join(f"{name} {count:,}" for name, count in reasons.most_common())
    lines = [f"unsafe: {num_unsafe:,} of {num_rows:,}{f' ({counts})' if counts else ''}"]
    if num_problems:
        lines.append(f"no proper verdict, which counts as unsafe: {num_problems:,}")
    return lines
