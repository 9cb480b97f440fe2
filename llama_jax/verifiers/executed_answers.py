"""Tasks of reasoning-gym whose scorers run an answer as Python, and which answers may get there.

Those scorers hand the answer to `eval`, or to sympy's `parse_expr`, which is the same: what a model
writes, or whoever wrote a file of answers, would be executed by who marks it. So an answer reaches
them only if it is a list of numbers and of texts in capitals, or plain arithmetic: neither can name
or call anything, and right answers are of this kind. Where right answers need more, as sin(x) does,
the task is refused.
"""

import re

# No lower case: no keyword and nothing that exists can be named. No power: 9**9**9 does not end.
_LITERAL = re.compile(r"[A-Z0-9_\s,\[\]'\"\-]*", re.ASCII)
_ARITHMETIC = re.compile(r"(?:[0-9\s+\-/()]|\*(?!\*))*", re.ASCII)

HARMLESS = {
    "binary_matrix": _LITERAL,
    "n_queens": _LITERAL,
    "spiral_matrix": _LITERAL,
    "string_insertion": _LITERAL,
    "countdown": _ARITHMETIC,
    "puzzle24": _ARITHMETIC,
}
"""Task -> the answers that its scorer may see."""

REFUSED = frozenset(
    ("composite", "intermediate_integration", "polynomial_multiplication", "simple_integration")
)
"""Tasks whose answers cannot be told from programs; `composite` may hold any of them."""


def may_be_scored(task: str, answer: str) -> bool:
    """Whether the scorer of `task` may see `answer`."""
    return task not in HARMLESS or HARMLESS[task].fullmatch(answer) is not None
