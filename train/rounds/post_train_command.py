"""`llama-jax post-train`: rounds of post-training by name, begun or gone on with."""

import inspect
from pathlib import Path
from typing import Annotated

from llama_jax.command_line import bind_arguments
from train.named_configs import config_docstring, take_name
from train.rounds.post_training import PostTraining
from train.run_source import find_rounds, named_rounds


def post_train(*arguments: str) -> None:
    """Runs rounds of post-training: command after command of llama-jax, each in a process of its
    own, as a config says.

    llama-jax post-train RUN OUTPUT [--field value ...]
    llama-jax post-train RUN OUTPUT --dry-run    every step's command line, as a shell script
    llama-jax post-train --list                  the configs that come with the code
    llama-jax post-train RUN --help              every field of a config

    RUN is a name of the list or path/to/file.py:function. Round 2 writes OUTPUT/round-2, what its
    step sft says goes to OUTPUT/round-2/logs/sft.log. Interrupted or failed, the same command goes
    on with the step that was not finished. It is started on one host; --launch says how commands
    get to several.

    Example: llama-jax post-train post_training_8b runs/rounds --rounds 2 --until round-1

    Args:
      arguments: RUN, OUTPUT, and fields of RUN with their new values.
    """
    usage = "llama-jax post-train RUN OUTPUT"
    taken = take_name(arguments, post_train, usage=usage, named=named_rounds())
    if taken is not None:
        name, rest = taken
        parse_rounds(find_rounds(name), name, rest)()


def parse_rounds(config: PostTraining, name: str, arguments: list[str]):
    """A function that runs `config` with the fields that `arguments` replace.

    Raises `InputError` for an unknown field, with near ones, or a value of another type.
    """
    import tyro

    def start(
        output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]],
        config: Annotated[type(config), tyro.conf.arg(name="")] = config,
        *,
        until: str | None = None,
        dry_run: bool = False,
        quiet: bool = False,
    ) -> None:
        """Runs the rounds.

        Args:
          output: the folder of all rounds.
          config: a field to replace.
          until: the last step to run, as round-2/sft, or the last round, as round-2.
          dry_run: print the command line of every step, as a shell script, and run none.
          quiet: print nothing but the table of evaluations and errors.
        """
        start_rounds(config, output, until=until, dry_run=dry_run, quiet=quiet)

    summary, options = _summary(config, name), inspect.getdoc(start).partition("Args:")[2]
    start.__doc__ = f"{summary}\n\nArgs:{options}"
    markers = (tyro.conf.AvoidSubcommands,)
    return bind_arguments(
        start, prog=f"llama-jax post-train {name}", arguments=arguments, markers=markers
    )


def start_rounds(
    config: PostTraining, output: Path, *, until: str | None, dry_run: bool, quiet: bool
) -> None:
    """Checks all steps of `config`, then runs those that are not done.

    Raises `InputError` for a step that cannot be run, has changed since it was done, or fails.
    """
    from train.rounds.check_commands import check_commands
    from train.rounds.done_steps import DoneSteps
    from train.rounds.dry_run import shell_script
    from train.rounds.plan import cut, final_model, plan
    from train.rounds.run_rounds import run_rounds

    steps = plan(config, output)
    wanted = cut(steps, until)
    done = DoneSteps(output)  # refuses a folder that holds something else
    check_commands(steps)
    if dry_run:
        done.check(steps)
        print(shell_script(wanted, done))
        return
    run_rounds(steps, len(wanted), output, num_rounds=config.rounds, quiet=quiet)
    if len(wanted) == len(steps):
        print(f"{final_model(config, output)}: the model that round {config.rounds} ends with")
    else:
        print(f"{output}: done up to {wanted[-1].place}; without --until, the rest follows")


def _summary(config: PostTraining, name: str) -> str:
    if name in named_rounds():
        return config_docstring(name, named_rounds())
    return f"The rounds {name}, {config.rounds} of them."
