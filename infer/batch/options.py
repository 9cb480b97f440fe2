"""The options of a job, checked."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from infer.load_engine import EngineOptions
from llama_jax.errors import InputError


@dataclass(frozen=True)
class BatchOptions:
    """What the command line says besides its files; see `batch_command.py`.

    Attributes:
      names: what rows may call the model; the first is what answers say.
    """

    names: tuple[str, ...]
    max_new_tokens: int = 128
    seed: int = 0
    format: Literal["auto", "chat", "raw"] = "auto"
    engine: EngineOptions = EngineOptions()

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise InputError(f"--max-new-tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to 2^32 - 1, not {self.seed}")
        for name in self.names:
            if not name or not name.isprintable():
                raise InputError(f"--served-model-name must be printable text, not {name!r}")

    @property
    def of_answers(self) -> dict[str, Any]:
        """Those that an answer may depend on, as the manifest has them; each is an option of the
        command line. The size of the cache is none: it decides only how many rows run at once."""
        of_engine = dataclasses.asdict(self.engine)
        del of_engine["cache_gigabytes"]
        return {
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "served_model_name": ", ".join(self.names),
            "format": self.format,
            **of_engine,
        }
