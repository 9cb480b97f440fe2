"""The guard of `llama-jax serve`, as the command line says it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from infer.guard.guard_options import Form, GuardOptions
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from llama_jax.safety import LlamaGuard


@dataclass(frozen=True)
class ServerGuardOptions:
    """A guard for a server.

    Attributes:
      guard: a Llama Guard 3 checkpoint that judges every prompt, and every answer before any of it
        is sent, streamed or not.
      guard_form: which published prompt is written, see llama-jax guard.
      guard_categories: a JSON file of categories in place of Llama Guard 3's.
      guard_exclude_category: code of a category that is not judged; give the option again for more.
      guard_descriptions: say in the prompt what belongs to each category, and not its name alone.
      guard_rows: dialogs that are judged at once.
      guard_max_length: longest dialog in tokens, with the prompt around it; longer ones are
        refused.
    """

    guard: str | None = None
    guard_form: Form = "huggingface"
    guard_categories: Path | None = None
    guard_exclude_category: tuple[str, ...] = ()
    guard_descriptions: bool = False
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
        options = GuardOptions(
            form=self.guard_form,
            categories=self.guard_categories,
            exclude_category=self.guard_exclude_category,
            descriptions=self.guard_descriptions,
        )
        return options.guard()


ServerGuardFlags = Annotated[
    ServerGuardOptions, tyro.conf.arg(name="", help=""), tyro.conf.UseAppendAction
]
"""The options as flags of a command, without a prefix."""
