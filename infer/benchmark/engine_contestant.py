"""Our engine in the offline comparison: as `llama-jax batch` builds it for a job it knows."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from infer.benchmark.contestant import Outcome
from infer.benchmark.workload import Workload


class EngineContestant:
    """The checkpoint at `path` in an engine for `workload`, all rows at once."""

    def __init__(self, path: Path, dtype: str, workload: Workload, **settings: Any):
        """Args: settings: of `engine_settings`, besides those that the job decides."""
        from infer.engine.engine import Engine
        from infer.engine.settings import GREEDY_ONLY
        from infer.engine.sizing import engine_settings
        from infer.loaded_model import load_model
        from llama_jax.costs import stored_bytes

        loaded = load_model(path, dtype=dtype)
        self.weight_bytes = stored_bytes(loaded.params)
        longest = max(map(len, workload.prompts)) + workload.new_tokens
        # Without sharing: a repetition must not find the pages of the one before.
        chosen = {"max_length": longest, "modes": (GREEDY_ONLY,), "prefix_sharing": False}
        sizes = engine_settings(loaded.config, loaded.params, **chosen | settings)
        self._engine = Engine(
            loaded.config, loaded.params, sizes, vocab_size=loaded.tokenizer.vocab_size
        )
        self._engine.compile()

    def warm_up(self, workload: Workload) -> None:
        self.run(dataclasses.replace(workload, new_tokens=2))

    def run(self, workload: Workload) -> Outcome:
        from infer.engine.request import Request
        from infer.sampling import GREEDY

        engine = self._engine
        start = time.perf_counter()
        tokens: dict[int, list[int]] = {
            engine.add(Request(prompt, GREEDY, workload.new_tokens)): []
            for prompt in workload.prompts
        }
        while not engine.is_idle:
            for progress in engine.step():
                tokens[progress.request_id].extend(progress.tokens)
        return Outcome(time.perf_counter() - start, list(tokens.values()))
