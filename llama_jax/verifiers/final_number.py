"""The number that an answer ends with."""

import re
from decimal import Decimal

# A minus after a word or a number is a dash: "5-10" ends with 10.
_NUMBER = re.compile(r"(?:(?<![\w.)])-)?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)", re.ASCII)


def final_number(text: str) -> Decimal | None:
    """The last number in `text`, written with or without dollar sign and commas, or None.

    As lm-eval's `flexible-extract` for GSM8K takes it, but compared by value: 18 is 18.00.
    """
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace("$", "").replace(",", "")) if found else None
