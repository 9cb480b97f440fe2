"""The steps of post-training as a shell script that does the same."""

import shlex
from collections.abc import Sequence

from train.rounds.done_steps import DoneSteps
from train.rounds.plan import PlannedStep
from train.rounds.step import Step
from train.terminal import clock_text


def shell_script(steps: Sequence[PlannedStep], done: DoneSteps) -> str:
    """All of `steps`; of those that are done it says so, with the time they took."""
    lines, made = ["set -e"], set()
    for planned in steps:
        seconds = done.seconds(planned.place)
        said = "" if seconds is None else f" (done in {clock_text(seconds)})"
        lines.append(f"\n# {planned.place}{said}")
        new = [folder for folder in planned.step.folders if folder not in made]
        lines += [f"mkdir -p {shlex.quote(folder)}" for folder in new]
        made.update(new)
        lines.append(planned.line + _accepted(planned.step))
    return "\n".join(lines)


def _accepted(step: Step) -> str:
    """What keeps the script from ending there after an exit code that is accepted."""
    codes = "|".join(str(code) for code in step.accepts if code)
    return f" || echo $? | grep -qxE {shlex.quote(codes)}" if codes else ""
