"""What all requests to the server share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infer.protocol import ServedModel
from infer.server.admission import Admission
from infer.server.engine_thread import EngineThread
from infer.server.guard_filter import ServerGuard
from infer.server.metrics import Metrics
from infer.server.settings import ServerSettings

NUM_TEXT_THREADS = 2


@dataclass(frozen=True)
class Workplace:
    """Made on the event loop, once the engine is compiled.

    Attributes:
      guard: judges prompts and answers, if there is one.
      text_threads: where bodies are parsed and tokenised: a long prompt takes a while, and the
        event loop has others to serve.
    """

    settings: ServerSettings
    model: ServedModel
    engine: EngineThread
    admission: Admission
    metrics: Metrics
    text_threads: ThreadPoolExecutor
    guard: ServerGuard | None = None
