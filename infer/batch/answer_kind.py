"""Jobs whose rows are questions, and are answered: `llama-jax batch`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infer.batch.job import Job
from infer.batch.job_modes import modes_for
from infer.batch.manifest import Manifest
from infer.batch.options import BatchOptions
from infer.batch.row_output import RowOutputs
from infer.batch.row_request import RowRequests, default_limit
from infer.batch.row_table import RowTable
from infer.engine.engine import Engine
from infer.generate_command import prompt_format
from infer.load_engine import EngineOptions
from infer.loaded_model import LoadedModel
from infer.protocol import ParsedRequest, ServedModel
from infer.sampling import SamplingMode
from llama_jax.batch_files.batch_row import BatchRow


@dataclass(frozen=True)
class AnswerKind:
    """`JobKind` of questions."""

    options: BatchOptions

    @property
    def engine(self) -> EngineOptions:
        return self.options.engine

    @property
    def of_answers(self) -> dict[str, Any]:
        return self.options.of_answers

    def limit(self, context_length: int) -> Callable[[BatchRow], int]:
        return default_limit(self.options.max_new_tokens, context_length)

    def modes(self, table: RowTable) -> tuple[SamplingMode, ...]:
        return modes_for(table.needs)

    def parser(self, loaded: LoadedModel, engine: Engine) -> Callable[[BatchRow], ParsedRequest]:
        options = self.options
        chat_format = prompt_format(loaded, options.format)
        served = ServedModel.of(loaded, names=options.names, max_length=engine.settings.max_length)
        return RowRequests(
            dataclasses.replace(served, chat_format=chat_format or loaded.chat_format),
            seed=options.seed,
            max_new_tokens=options.max_new_tokens,
            prompts_are_messages=chat_format is not None,
        )

    def notes(self, loaded: LoadedModel) -> list[str]:
        return []

    def outputs(self, manifest: Manifest, loaded: LoadedModel, engine: Engine) -> RowOutputs:
        return RowOutputs(manifest.input_sha256, manifest.created)

    def summary(self, job: Job) -> list[str]:
        return []
