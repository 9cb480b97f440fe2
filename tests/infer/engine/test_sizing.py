"""The memory that pages may take on a device that has other things to hold."""

import jax
import numpy as np
import pytest

from infer.engine.sizing import engine_settings
from llama_jax import abstract_params
from llama_jax.config import TINY
from llama_jax.costs import kv_bytes_per_token
from llama_jax.errors import InputError


class Device:
    platform, device_kind = "gpu", "a fake of one gigabyte"

    def memory_stats(self):
        return {"bytes_limit": 10**9}


def test_pages_leave_room_for_another_engine(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    params = abstract_params(TINY)
    alone = engine_settings(TINY, params)
    beside = engine_settings(TINY, params, beside={"weights": np.zeros(400_000_000, np.int8)})
    page_bytes = alone.page_size * kv_bytes_per_token(TINY, np.dtype(np.float32))
    assert alone.num_pages * page_bytes <= 0.9e9
    assert abs((alone.num_pages - beside.num_pages) * page_bytes - 4e8) <= page_bytes


def test_a_row_longer_than_the_context_is_refused_and_a_shorter_one_is_whole_pages():
    params = abstract_params(TINY)
    most = TINY.context_length
    assert engine_settings(TINY, params, max_length=most).max_length == most
    assert engine_settings(TINY, params, max_length=17).max_length == 32
    with pytest.raises(InputError, match=f"{most + 1} tokens .* context of {most}: .* most {most}"):
        engine_settings(TINY, params, max_length=most + 1)
