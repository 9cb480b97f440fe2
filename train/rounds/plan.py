"""All steps of post-training, in order."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from llama_jax.errors import InputError
from train.rounds.post_training import PostTraining, Round
from train.rounds.step import Step


@dataclass(frozen=True)
class PlannedStep:
    """A step and where it stands.

    Attributes:
      round: it is of.
      step: itself.
      identity: its command line with `OUTPUT` for the folder of the rounds, which may be moved:
        what makes a step the same when the rounds go on.
      prefix: what launches it.
    """

    round: Round
    step: Step
    identity: str
    prefix: tuple[str, ...]

    @property
    def place(self) -> str:
        """`round-2/sft`"""
        return f"{self.round.name}/{self.step.name}"

    @property
    def log(self) -> Path:
        """What the step says, all its tries."""
        return Path(self.round.path("logs")) / f"{self.step.name}.log"

    @property
    def line(self) -> str:
        """The command line, as typed into a shell."""
        return self.step.line(self.prefix)


def plan(config: PostTraining, output: Path) -> list[PlannedStep]:
    """The steps of `config` in the folder `output`.

    Raises `InputError` for rounds without steps, and names given twice.
    """
    if config.rounds < 1:
        raise InputError(f"--rounds must be at least 1, not {config.rounds}")
    prefixes = _prefixes(config)
    steps = []
    for (round, step), (_, named) in zip(
        _steps(config, output), _steps(config, Path("OUTPUT")), strict=True
    ):
        steps.append(PlannedStep(round, step, named.line(), prefixes.get(step.program, ())))
    unknown = prefixes.keys() - {planned.step.program for planned in steps}
    if unknown:
        known = ", ".join(sorted({planned.step.program for planned in steps}))
        raise InputError(f"--launch {min(unknown)}: no step runs it; there are: {known}")
    return steps


def cut(steps: list[PlannedStep], until: str | None) -> list[PlannedStep]:
    """The steps up to the one at the place `until`, or to the last one of a round; None for all.

    Raises `InputError` if there is no such place.
    """
    if until is None:
        return steps
    found = [index for index, one in enumerate(steps) if until in (one.place, one.round.name)]
    if not found:
        names = ", ".join(dict.fromkeys(one.round.name for one in steps))
        last = steps[-1].round.name
        of_last = ", ".join(one.place for one in steps if one.round.name == last)
        raise InputError(f"--until {until}: no such step; name one of {names}, or {of_last}")
    return steps[: found[-1] + 1]


def final_model(config: PostTraining, output: Path) -> str:
    """The checkpoint that all rounds end with."""
    return config.model_of(Round(config.rounds, "", output))


def _steps(config: PostTraining, output: Path) -> list[tuple[Round, Step]]:
    opening = Round(0, config.base, output)
    steps = [(opening, step) for step in config.opening(opening)]
    policy = config.model_of(opening) if steps else config.base
    for number in range(1, config.rounds + 1):
        round = Round(number, policy, output)
        of_round = list(config.round_steps(round))
        if not of_round:
            raise InputError(f"{round.name}: has no steps; round_steps must return some")
        steps += [(round, step) for step in of_round]
        policy = config.model_of(round)
    places = [(round.number, step.name) for round, step in steps]
    for number, name in places:
        if places.count((number, name)) > 1:
            raise InputError(f"round-{number}/{name}: two steps have this name; rename one")
    return steps


def _prefixes(config: PostTraining) -> dict[str, tuple[str, ...]]:
    prefixes = {}
    for command, prefix in config.launch:
        if command in prefixes:
            raise InputError(f"--launch {command}: is given twice; give it once")
        try:
            prefixes[command] = tuple(shlex.split(prefix))
        except ValueError as error:
            raise InputError(f"--launch {command}: {prefix!r} is no command ({error})") from None
    return prefixes
