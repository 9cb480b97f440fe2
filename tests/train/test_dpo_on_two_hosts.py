"""DPO in two processes: the reference's log-probabilities and the steps are those of one."""

import json
import socket

import jax
import numpy as np
import pytest

from llama_jax.checkpoints.save import save_checkpoint
from llama_jax.model import init_params

from . import chat_runs, small_runs


def start(folder, *options, devices):
    return small_runs.start(folder, "dpo_here", *options, devices=devices, file=chat_runs.__file__)


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["kind"] == "train"])


@pytest.mark.slow
def test_two_processes_are_as_good_as_one(tmp_path):
    chat_runs.write_data(tmp_path)
    params = init_params(chat_runs.MODEL, jax.random.key(0))
    save_checkpoint(tmp_path / "sft" / "weights", chat_runs.MODEL, params, format="orbax")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = ("--coordinator", f"localhost:{port}", "--num-processes", "2", "--output", "together")
    processes = [start(tmp_path, *job, "--process-id", str(i), devices=1) for i in range(2)]
    try:
        for process in processes:
            small_runs.finish(process)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    stored = {
        path.relative_to(tmp_path): np.fromfile(path, np.float32)
        for path in tmp_path.glob("*.reference_log_probs/*/values.bin")
    }
    assert len(stored) == 2
    for path in stored:
        (tmp_path / path).unlink()
        (tmp_path / path).with_name("reference.json").unlink()

    small_runs.finish(start(tmp_path, "--output", "alone", devices=2))
    # float32 sums in another order.
    for path, values in stored.items():
        np.testing.assert_allclose(np.fromfile(tmp_path / path, np.float32), values, rtol=2e-6)
    np.testing.assert_allclose(losses(tmp_path / "together"), losses(tmp_path / "alone"), rtol=1e-5)
