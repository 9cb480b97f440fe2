"""An engine for a loaded model, on the devices that are here."""

from typing import Any

from infer.engine.engine import Engine
from infer.engine.sizing import engine_settings
from infer.loaded_model import LoadedModel


def load_engine(loaded: LoadedModel, **options: Any) -> Engine:
    """The engine, not compiled yet; `options` are those of `engine_settings`.

    Raises:
      InputError: as `engine_settings` and `Engine`.
    """
    settings = engine_settings(loaded.config, loaded.params, **options)
    return Engine(loaded.config, loaded.params, settings, vocab_size=loaded.tokenizer.vocab_size)
