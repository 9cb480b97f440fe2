"""What all requests to the server share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infer.protocol import ServedModel
from infer.server.admission import Admission
from infer.server.engine_thread import EngineThread
from infer.server.metrics import Metrics
from infer.server.settings import ServerSettings

_NUM_TEXT_THREADS = 2


@dataclass(frozen=True)
class Workplace:
    """Made on the event loop, once the engine is compiled.

    Attributes:
      text_threads: where bodies are parsed and tokenised: a long prompt takes a while, and the
        event loop has others to serve.
    """

    settings: ServerSettings
    model: ServedModel
    engine: EngineThread
    admission: Admission
    metrics: Metrics
    text_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_NUM_TEXT_THREADS, "text")
    )
