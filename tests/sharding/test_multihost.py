"""Which cluster a process finds itself in, and what is said when the others are not there."""

import jax
import pytest

from llama_jax.errors import InputError
from sharding import multihost
from sharding.multihost import detect_cluster, initialize

VARIABLES = [name for names in multihost._CLUSTERS.values() for name in names]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "variables, found",
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}, "Slurm"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, None),  # an allocation of one task
        ({"SLURM_JOB_ID": "7"}, None),  # a shell within an allocation
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "x"}, None),  # a pod on its own
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "TPU pod"),
        ({"TPU_WORKER_ID": "0"}, None),
    ],
    ids=str,
)
def test_a_cluster_is_known_by_its_variables(monkeypatch, variables, found):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert detect_cluster() == found


@pytest.mark.parametrize(
    "variables, advice",
    [
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, "srun --ntasks=1"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun -n 1"),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "without TPU_PROCESS_ADDRESSES"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "a slice with one host"),
    ],
    ids=str,
)
def test_one_of_several_is_told_how_to_be_alone(monkeypatch, variables, advice):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"would work by itself: .*{advice}"):
        multihost.check_alone("work")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"},
        {"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"},  # perhaps the only one
    ],
    ids=str,
)
def test_who_may_be_alone_is_let_be(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    multihost.check_alone("work")


def test_a_process_alone_says_so():
    assert initialize().startswith("one process (no cluster found")


@pytest.mark.parametrize(
    "given, missing",
    [
        ({"coordinator": "x:1"}, "--num-processes and --process-id"),
        ({"num_processes": 2}, "--coordinator and --process-id"),
        ({"process_id": 0}, "--coordinator and --num-processes"),
        ({"coordinator": "x:1", "process_id": 0}, "--num-processes"),
    ],
    ids=str,
)
def test_the_three_belong_together(given, missing):
    with pytest.raises(InputError) as error:
        initialize(**given)
    assert str(error.value) == f"give {missing} too, or none of the three"


def test_given_numbers_are_handed_to_jax_and_the_result_is_said(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    assert initialize("host:1", 1, 0, peer_timeout=7) == "process 0 of 1 (given)"
    assert calls == [(("host:1", 1, 0), {"heartbeat_timeout_seconds": 7})]


@pytest.mark.parametrize("given", [("host:1", 2, 2), ("host:1", 2, -1), ("host:1", 0, 0)])
def test_numbers_that_cannot_be_are_one_line(given):
    """JAX says what is wrong with them; it does not begin to wait."""
    with pytest.raises(InputError, match="did not find each other") as error:
        initialize(*given)
    assert "\n" not in str(error.value) and "--process-id" in str(error.value)


def test_a_cluster_without_peers_is_one_line(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmany more lines")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(InputError) as error:
        initialize()
    assert str(error.value).startswith("Open MPI cluster: the job's processes did not find each")
    assert "Barrier timed out" in str(error.value) and "\n" not in str(error.value)
