"""The guard of `llama-jax serve`, as the command line says it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from infer.guard.guard_options import GuardOptions
from infer.load_engine import EngineOptions
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from infer.server.run_server import GuardEngine
    from llama_jax.safety import LlamaGuard


@dataclass(frozen=True)
class GuardFlags:
    """A guard for a server.

    Attributes:
      guard: a Llama Guard 3 checkpoint that judges every prompt, and every answer before any of it
        is sent, streamed or not.
      guard_form: which published prompt is written, see llama-jax guard.
      guard_categories: a JSON file of categories in place of Llama Guard 3's.
      guard_exclude_category: code of a category that is not judged; give the option again for more.
      guard_rows: dialogs that are judged at once.
      guard_max_length: longest dialog in tokens, with the prompt around it; longer ones are
        refused.
    """

    guard: str | None = None
    guard_form: Literal["huggingface", "huggingface_1b", "cookbook", "llama_stack"] = "huggingface"
    guard_categories: Path | None = None
    guard_exclude_category: tuple[str, ...] = ()
    guard_rows: int = 8
    guard_max_length: int = 8192

    def __post_init__(self):
        if self.guard is None:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    name = field.name.replace("_", "-")
                    raise InputError(f"--{name} does nothing without a guard: add --guard MODEL")
        for name in ("guard_rows", "guard_max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1")

    def prompt(self) -> "LlamaGuard":
        """What the guard is asked. Raises `InputError` for a file or a code that is wrong."""
        options = GuardOptions(self.guard_form, self.guard_categories, self.guard_exclude_category)
        return options.guard()


GuardArgument = Annotated[GuardFlags, tyro.conf.arg(name="", help=""), tyro.conf.UseAppendAction]
"""The options as flags of a command, without a prefix."""


def load_guard(
    flags: GuardFlags, engine: EngineOptions, *, say: Callable[[str], None]
) -> "tuple[GuardEngine, Any]":
    """The guard, compiled, and the arrays that it keeps on the devices.

    Args:
      engine: of the server, whose devices and dtype the guard shares.

    Raises `InputError` as `load_engine` does, and if the model is no Llama Guard.
    """
    from infer.answers import Answering
    from infer.guard.form_notes import form_notes
    from infer.guard.guard_command import refuse_prompt_guard
    from infer.guard.judge import JUDGING, Judge
    from infer.load_engine import load_engine
    from infer.server.run_server import GuardEngine
    from llama_jax.checkpoints.huggingface_repo import resolve_source

    refuse_prompt_guard(flags.guard)
    loaded, started = load_engine(
        resolve_source(flags.guard),
        EngineOptions(
            rows=flags.guard_rows,
            max_length=flags.guard_max_length,
            dtype=engine.dtype,
            devices=engine.devices,
        ),
        modes=(JUDGING,),
        say=say,
    )
    for note in form_notes(flags.guard_form, loaded):
        say(note)
    judge = Judge(flags.prompt(), loaded, max_length=started.settings.max_length)
    say(f"compiling the guard {flags.guard}")
    started.compile(say)
    guard = GuardEngine(judge, Answering(started, loaded.tokenizer), started.usage)
    return guard, started.arrays
