"""The part of an answer that is judged."""

import re

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def final_answer(text: str) -> str:
    """What stands in the last `<answer>...</answer>`, as reasoning-gym's own prompts ask for it;
    all of the text where there is none. Without spaces around."""
    found = _TAGGED.findall(text)
    return (found[-1] if found else text).strip()
