"""The guard of `llama-jax serve`, from its checkpoint to an engine of its own."""

from collections.abc import Callable
from typing import Any

from infer.answers import Answering
from infer.guard.form_notes import form_notes
from infer.guard.guard_command import refuse_prompt_guard
from infer.guard.judge import JUDGING, Judge
from infer.load_engine import EngineOptions, load_engine
from infer.server.run_server import GuardEngine
from infer.server.server_guard_options import ServerGuardOptions
from llama_jax.checkpoints.huggingface_repo import resolve_source


def load_guard(
    options: ServerGuardOptions, engine: EngineOptions, *, say: Callable[[str], None]
) -> tuple[GuardEngine, Any]:
    """The guard, compiled, and the arrays that it keeps on the devices.

    Args:
      engine: of the server, whose devices and dtype the guard shares.

    Raises `InputError` as `load_engine` does, and if the model is no Llama Guard.
    """
    refuse_prompt_guard(options.guard)
    loaded, started = load_engine(
        resolve_source(options.guard),
        EngineOptions(
            rows=options.guard_rows,
            max_length=options.guard_max_length,
            dtype=engine.dtype,
            devices=engine.devices,
        ),
        modes=(JUDGING,),
        say=say,
    )
    for note in form_notes(options.guard_form, loaded):
        say(note)
    judge = Judge(
        options.prompt(), loaded, max_length=started.settings.max_length, model=options.guard
    )
    say(f"compiling the guard {options.guard}")
    started.compile(say)
    guard = GuardEngine(judge, Answering(started, loaded.tokenizer), started.usage)
    return guard, started.arrays
