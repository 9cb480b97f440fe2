"""What the commands of `llama-jax` do, a line each."""

import shutil
from collections.abc import Mapping


def command_overview(commands: Mapping[str, str]) -> str:
    """The usage of the front door.

    Args:
      commands: name -> what it does in one line.
    """
    width = max(map(len, commands))
    columns = shutil.get_terminal_size().columns
    lines = [f"  {name:<{width}}  {does}"[:columns] for name, does in commands.items()]
    return "\n".join(
        [
            "usage: llama-jax COMMAND ...",
            "",
            *lines,
            "",
            "llama-jax COMMAND --help explains a command; llama-jax --version says which this is.",
        ]
    )
