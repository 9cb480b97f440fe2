"""Running the steps of post-training that are not done yet."""

from collections.abc import Sequence
from pathlib import Path

from train.rounds.done_steps import DoneSteps
from train.rounds.evaluation_table import evaluation_table, print_table
from train.rounds.given_files import given_files
from train.rounds.plan import PlannedStep
from train.rounds.rounds_display import make_display
from train.rounds.run_step import run_step
from train.run_lock import RunLock


def run_rounds(
    steps: Sequence[PlannedStep], wanted: int, output: Path, *, num_rounds: int, quiet: bool
) -> None:
    """Runs the first `wanted` of `steps`, from the first that is not done, and prints the numbers
    of their evaluations.

    Raises `InputError` if a step has changed since it was done, and for the first that fails; what
    was done stays done.
    """
    display = make_display(num_rounds=num_rounds, quiet=quiet)
    with RunLock(output, work="runs these rounds", otherwise="name another OUTPUT") as lock:
        lock.take()
        done = DoneSteps(output)  # read by the one who may change it
        done.check(steps)
        done.write()
        try:
            for index in range(len(done), wanted):
                planned = steps[index]
                display.begin(planned, index=index, num_steps=wanted)
                given = given_files(planned.step.command, output)
                ended = run_step(planned, lock, watch=display.watch)
                done.add(planned, given=given, seconds=ended.seconds)
                display.end(planned, ended)
        finally:
            display.close()
    if table := evaluation_table(steps[:wanted]):
        print_table(table)
