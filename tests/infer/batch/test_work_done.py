"""What a job costs at best, against sums by hand; shapes and fingerprints."""

import dataclasses
import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infer.batch import device_peaks as device_peaks_module
from infer.batch.device_peaks import device_peaks
from infer.batch.job_shape import SHARES, job_shape
from infer.batch.part_file import FinishedRow
from infer.batch.row_table import scan_rows
from infer.batch.work_done import DevicePeaks, WorkDone
from llama_jax.accelerators import accelerator
from llama_jax.checkpoints.fingerprint import model_fingerprint
from llama_jax.config import TINY
from llama_jax.costs import forward_flops_per_token


def flops(num_keys):
    return forward_flops_per_token(TINY, num_keys)


def seconds(work, peaks, **options):
    fixed = {"weight_bytes": 1000, "bytes_per_key": 10, "slots": 4, "share_of_prompts": 1.0}
    return work.seconds_at_peak(TINY, peaks, **(fixed | options))


def test_the_least_time_is_the_sum_over_all_tokens():
    """Rows of 3 prompt tokens and 2 new ones, and of 2 samples of 4 after a prompt of 5."""
    work = WorkDone()
    work.add(FinishedRow(0, "output", b"", 3, 2))
    work.add(FinishedRow(1, "output", b"", 5, 8, samples=2))
    work.add(FinishedRow(2, "error", b""))
    assert (work.rows, work.failed, work.longest) == (3, 1, 4)
    head = 2 * TINY.vocab_size * TINY.model_dim
    prompts = sum(flops(keys) - head for keys in (1, 2, 3, 1, 2, 3, 4, 5))
    new_keys = [4, 5, *2 * [6, 7, 8, 9]]
    answers = sum(flops(keys) for keys in new_keys)
    slow_products = DevicePeaks(1e30, 7.0, "")
    assert seconds(work, slow_products) == pytest.approx((prompts + answers) / 7)
    half = seconds(work, slow_products, share_of_prompts=0.5)
    assert half == pytest.approx((prompts / 2 + answers) / 7)
    slow_memory = DevicePeaks(7.0, 1e30, "")
    # Ten new tokens: three steps of four slots are not enough for an answer of four.
    assert seconds(work, slow_memory) == pytest.approx((4 * 1000 + 10 * sum(new_keys)) / 7)
    two_slots = seconds(work, slow_memory, slots=2)
    assert two_slots == pytest.approx((5 * 1000 + 10 * sum(new_keys)) / 7)


def test_peaks_are_published_measured_or_unknown(monkeypatch):
    params = {"embedding": jnp.ones(1, jnp.bfloat16)}

    def peaks_of(kind, params=params, num_devices=1):
        device = SimpleNamespace(platform="gpu", device_kind=kind)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        return device_peaks(params, num_devices=num_devices)

    known = accelerator("NVIDIA H200")
    two = peaks_of("NVIDIA H200", num_devices=2)
    assert (two.bytes, two.flops) == (2 * known.memory_bandwidth, 2 * known.bf16_flops)
    assert str(two) == "9,600 GB/s, 1.98e+03 TFLOP/s of 2 NVIDIA H200, published"
    in_fp8 = params | {"weight": jnp.ones(1, jnp.float8_e4m3fn)}
    assert peaks_of("NVIDIA H200", in_fp8).flops == known.fp8_flops
    assert peaks_of("Somebody's GPU") is None
    monkeypatch.undo()
    monkeypatch.setattr(device_peaks_module, "read_bandwidth", lambda **_: 5e9)
    monkeypatch.setattr(device_peaks_module, "matmul_rate", lambda dtype, **_: 2e12)
    assert str(device_peaks(params, num_devices=1)) == "5 GB/s, 2 TFLOP/s in bfloat16, measured"


def test_the_shape_of_a_job_is_close_for_all_rows_and_exact_for_the_longest(tmp_path):
    path = tmp_path / "in.jsonl"
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)
    with open(path, "w") as file:
        for length in lengths:
            row = {"prompt": "x" * int(length), "max_tokens": int(length) % 9 + 1}
            file.write(json.dumps(row) + "\n")
        file.write("broken\n")
    table = scan_rows(path, default_limit=lambda row: 10)
    asked = []

    def count_tokens(row):
        asked.append(row)
        return None if row % 10 == 1 else int(lengths[row]) // 3 + 7

    shape = job_shape(table, count_tokens)
    assert len(asked) <= 256 and 2000 not in asked
    assert (shape.num_rows, shape.num_samples) == (2001, 2000)
    exact = np.quantile(lengths // 3 + 7, SHARES, method="higher")
    # Between two rows of the sample, which are 4 bytes apart, tokens are guessed.
    np.testing.assert_allclose(shape.prompt_tokens, exact, atol=2)
    assert shape.prompt_tokens[-1] == exact[-1]
    assert shape.max_new_tokens[0] == 1 and shape.max_new_tokens[-1] == 9
    none_known = job_shape(table, lambda row: None)
    assert none_known.prompt_tokens[-1] == -(-int(lengths.max()) // 4)
    assert not shape.prompt_logprobs


def test_a_job_without_a_good_row_has_a_shape(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("broken\n")
    shape = job_shape(scan_rows(path, default_limit=lambda row: 10), lambda row: 1)
    assert shape.prompt_tokens == (0,) * len(SHARES)


def test_a_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    for name in ("config.json", "inner/weights"):
        (folder / name).write_bytes(os.urandom(1000))
    before = model_fingerprint(folder)
    folder = folder.rename(tmp_path / "moved")
    (folder / ".hidden").write_text("x")
    assert model_fingerprint(folder) == before
    seen = {before}
    content = (folder / "inner/weights").read_bytes()
    (folder / "inner/weights").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    seen.add(model_fingerprint(folder))
    (folder / "inner/weights").rename(folder / "inner/other")
    seen.add(model_fingerprint(folder))
    (folder / "extra").write_text("")
    seen.add(model_fingerprint(folder))
    assert len(seen) == 4


def test_a_large_file_is_sampled_all_over(tmp_path):
    """A sparse file of 100 MiB: a change in any megabyte that a tensor would fill is seen."""
    path = tmp_path / "model.gguf"
    size = 100 << 20
    with open(path, "wb") as file:
        file.truncate(size)
    before = model_fingerprint(path)
    for start in (0, 40 << 20, size - (8 << 20)):
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"x" * (8 << 20))
        assert model_fingerprint(path) != before
        before = model_fingerprint(path)
    os.truncate(path, size - 1)
    assert model_fingerprint(path) != before


def test_totals_of_a_job_are_plain_numbers():
    assert all(type(value) in (int, float) for value in dataclasses.asdict(WorkDone()).values())
