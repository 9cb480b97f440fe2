"""Which TPU hosts are alone, which have peers, and what is said when peers are not found."""

import jax
import pytest

from llama_jax.errors import InputError
from sharding import multihost
from sharding.multihost import detect_cluster, initialize

NAMES = [name for names in multihost._CLUSTERS.values() for name in names]
WARNING = "WARNING: could not determine TPU worker hostnames, please check the metadata"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (*NAMES, "TPU_SKIP_MDS_QUERY", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def chips():
    """What `import jax` sets where it finds TPU chips."""
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    yield
    jax.config.update("jax_platforms", platforms)


@pytest.mark.parametrize(
    "hosts, num_slices, found",
    [
        ("localhost", None, None),
        ("t1v-n-0", None, None),
        ("", None, None),
        (WARNING, None, None),
        ("t1v-n-0,t1v-n-1", None, "TPU pod"),
        ("10.0.0.2, 10.0.0.3", "1", "TPU pod"),
        ("job-0.svc", "4", "TPU pod"),  # four slices of one host
    ],
)
def test_a_tpu_host_is_alone_unless_others_are_named(monkeypatch, chips, hosts, num_slices, found):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", hosts)
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    if num_slices:
        monkeypatch.setenv("MEGASCALE_NUM_SLICES", num_slices)
    assert detect_cluster() == found


def test_several_processes_of_one_tpu_host_are_a_cluster(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_PROCESS_ADDRESSES", "localhost:8476")
    assert detect_cluster() is None
    monkeypatch.setenv("TPU_PROCESS_ADDRESSES", "localhost:8476,localhost:8477")
    assert detect_cluster() == "TPU processes"


def test_on_a_tpu_without_names_the_metadata_server_is_asked(monkeypatch, chips):
    assert detect_cluster() == "Cloud TPU"
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    assert detect_cluster() is None


def test_without_chips_nobody_is_asked():
    assert detect_cluster() is None


@pytest.mark.parametrize("kind, hint", [("Slurm", "with srun, or"), ("Kubernetes", "jax[k8s]")])
def test_whatever_a_cluster_raises_is_one_line_with_a_hint(monkeypatch, kind, hint):
    def fail(*arguments, **options):
        raise KeyError

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    for name in multihost._CLUSTERS[kind]:
        monkeypatch.setenv(name, "2")
    with pytest.raises(InputError) as error:
        initialize()
    message = str(error.value)
    assert message.startswith(f"{kind} cluster: ") and "(KeyError)" in message and hint in message
    assert message.endswith("give --coordinator HOST:PORT, --num-processes and --process-id")


@pytest.mark.parametrize("coordinator", ["host", "host:", "host:port", ":1"])
def test_a_coordinator_has_a_host_and_a_port(coordinator):
    with pytest.raises(InputError, match=f"--coordinator {coordinator}: must be HOST:PORT"):
        initialize(coordinator, 2, 0)
