"""The options of a job, checked."""

from dataclasses import dataclass
from typing import Any, Literal

from infer.cache_dtypes import CacheDtype
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
    rows: int | None = None
    max_length: int | None = None
    cache_gigabytes: float | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    kv_cache_dtype: CacheDtype | None = None

    def __post_init__(self):
        for name in ("max_new_tokens", "rows", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.cache_gigabytes is not None and not self.cache_gigabytes > 0:
            raise InputError(f"--cache-gigabytes must be above 0, not {self.cache_gigabytes}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to 2^32 - 1, not {self.seed}")
        for name in self.names:
            if not name or not name.isprintable():
                raise InputError(f"--served-model-name must be printable text, not {name!r}")

    @property
    def of_answers(self) -> dict[str, Any]:
        """Those that an answer may depend on, as the manifest has them; each is an option of the
        command line. The size of the cache is none: it decides only how many rows run at once."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "served_model_name": ", ".join(self.names),
            "format": self.format,
            "rows": self.rows,
            "max_length": self.max_length,
            "dtype": self.dtype,
            "kv_cache_dtype": self.kv_cache_dtype,
        }
