"""The front door: `llama-jax COMMAND ...`.

A command's function is imported when it is asked for (`commands.py`); its typed arguments and
docstring are its command line (tyro).

Whatever the user can put right ends as one line on stderr and exit code 2; anything else is our
mistake and keeps its traceback.
"""

import difflib
import functools
import glob
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence

from llama_jax import __version__
from llama_jax.command_line import bind_arguments, parses_itself
from llama_jax.command_overview import command_overview
from llama_jax.commands import COMMANDS
from llama_jax.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line (`sys.argv` by default) and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        sys.exit(_run(arguments))
    except InputError as error:
        sys.exit(_report(str(error)))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left: nobody to tell
        sys.exit(141)
    except OSError as error:
        sys.exit(_report(_describe(error)))
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except _Terminated:
        _leave("terminated", 143)


class _Terminated(BaseException):
    """SIGTERM, what a job scheduler sends; unwinds like Ctrl-C and leaves nothing half-written."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _leave(word: str, code: int) -> None:
    """Ends the process at once: a compilation that XLA's threads are in the middle of would crash
    an orderly exit."""
    print(word, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    if not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*")):
        # Without a TPU, an installed libtpu is only a compiler and need not search for one.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        others = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg")
        if importlib.util.find_spec("libtpu") and not any(glob.glob(name) for name in others):
            os.environ.setdefault("JAX_PLATFORMS", "cpu")  # else JAX tries libtpu, which complains
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(command_overview({name: does for name, (_, does) in COMMANDS.items()}))
        return 0
    if arguments[0] in ("--version", "-V"):
        print(f"llama-jax {__version__}")
        return 0
    if (group := _group(arguments[0])) and arguments[1:] in ([], ["-h"], ["--help"]):
        print(command_overview({name: COMMANDS[name][1] for name in group}))
        return 0 if arguments[1:] else 2
    return bind_command(arguments)() or 0


def bind_command(arguments: list[str]) -> Callable[[], int | None]:
    """What the command line `arguments` calls, without calling it.

    Raises `InputError` for an unknown command or a mistake in its arguments, `SystemExit` after
    `--help`.
    """
    command, rest = _split(arguments)
    module, name = COMMANDS[command][0].split(":")
    function = getattr(importlib.import_module(module), name)
    if parses_itself(function):
        return functools.partial(function, *rest)
    return bind_arguments(function, prog=f"llama-jax {command}", arguments=rest)


def _group(word: str) -> list[str]:
    """The commands of two words that begin with `word`."""
    return [command for command in COMMANDS if command.startswith(f"{word} ")]


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments."""
    group = _group(arguments[0])
    num_words = 2 if group else 1
    command = " ".join(arguments[:num_words])
    if command not in COMMANDS:
        names = {name.split()[-1]: name for name in group} or {name: name for name in COMMANDS}
        near = difflib.get_close_matches(arguments[num_words - 1], names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(names[name] for name in near)}?"
        if not near:
            hint = f"one of: {', '.join(names.values())}"
        raise InputError(f"no command {command!r}; {hint}")
    return command, arguments[num_words:]


def _describe(error: OSError) -> str:
    """Names the file of an error of the operating system, such as a full disk."""
    files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
    reason = error.strerror or str(error).splitlines()[0]
    return f"{files}: {reason}" if files else reason


def _report(message: str) -> int:
    line = f"error: {' '.join(message.split())}"
    shown = f"\x1b[31m{line}\x1b[0m" if sys.stderr.isatty() else line
    sys.stderr.write(f"{shown}\n")  # in one piece: threads of libraries may be writing too
    return 2


if __name__ == "__main__":
    main()
