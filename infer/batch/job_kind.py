"""What one kind of job does with its rows; everything else, files to signals, is any job's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from infer.batch.row_output import RowOutputs
from infer.batch.row_table import RowTable
from infer.load_engine import EngineOptions
from infer.protocol import ParsedRequest
from infer.sampling import SamplingMode
from llama_jax.batch_files.batch_row import BatchRow

if TYPE_CHECKING:
    from infer.batch.job import Job
    from infer.batch.manifest import Manifest
    from infer.engine.engine import Engine
    from infer.loaded_model import LoadedModel


class JobKind(Protocol):
    """Answering questions (`answer_kind.py`), judging dialogs (`infer/guard`)."""

    @property
    def engine(self) -> EngineOptions:
        """How the model is run."""
        ...

    @property
    def of_answers(self) -> dict[str, Any]:
        """Options of the command line on which an answer depends, as the manifest has them."""
        ...

    def limit(self, context_length: int) -> Callable[[BatchRow], int]:
        """The most new tokens of a row that does not say, as `scan_rows` wants to know it."""
        ...

    def modes(self, table: RowTable) -> tuple[SamplingMode, ...]:
        """What sampling is compiled for."""
        ...

    def parser(
        self, loaded: "LoadedModel", engine: "Engine"
    ) -> Callable[[BatchRow], ParsedRequest]:
        """From a row to what the engine is asked; raises `InputError` for a row that cannot be."""
        ...

    def notes(self, loaded: "LoadedModel") -> list[str]:
        """Lines about what the model and the options make of each other."""
        ...

    def outputs(self, manifest: "Manifest", loaded: "LoadedModel", engine: "Engine") -> RowOutputs:
        """How the end of a row is written."""
        ...

    def summary(self, job: "Job") -> list[str]:
        """Lines about a finished job, after those about any job."""
        ...
