"""What a run's folder tells of the processes before: its devices, and whether it is at its end."""

import dataclasses

import jax

from configs.tiny_cpu import tiny_cpu
from sharding.mesh import MeshShape, make_mesh
from train.metrics_log import MetricsLog
from train.run_past import devices_before, devices_text, is_finished, note_finished


def test_devices_are_those_of_the_latest_process(tmp_path):
    assert devices_before(tmp_path) is None
    for step, mesh in enumerate((MeshShape(fsdp=8), MeshShape(data=2, fsdp=4))):
        with MetricsLog(tmp_path, resume_step=step) as log:
            log.write(step, "event", {"started": "x", "on": devices_text(make_mesh(mesh))})
            log.write(step, "train", {"loss": 1.0})
    assert devices_before(tmp_path) == "8 devices (data 2 x fsdp 4)"
    one = jax.sharding.Mesh([[jax.devices()[0]]], ("a", "b"))
    assert devices_text(one) == "1 device"


def test_a_run_is_finished_when_its_weights_are_there_and_are_of_this_run_and_step(tmp_path):
    run = dataclasses.replace(tiny_cpu(), output=str(tmp_path / "old"))
    weights = tmp_path / "old" / "weights"
    weights.mkdir(parents=True)
    assert not is_finished(run, 5)
    note_finished(run, 5)
    assert not is_finished(run, 5)
    (weights / "llama_jax.json").touch()
    assert is_finished(run, 5) and not is_finished(run, 6)
    assert not is_finished(dataclasses.replace(run, stages=run.stages[:1]), 5)
    (tmp_path / "old").rename(tmp_path / "new")
    assert is_finished(dataclasses.replace(run, output=str(tmp_path / "new")), 5)
