"""Joining the processes of a job into one: `initialize`, before anything touches a device.

JAX finds its peers by itself under Open MPI and Slurm, on TPU pods (Google Cloud and GKE) and in
indexed Kubernetes jobs (`jax/_src/clusters`); anywhere else the three numbers are given. What is
found is printed, as a job that silently became N jobs of one process is the dearest mistake of its
kind. Where several processes are promised and JAX cannot find them, it is an error for the same
reason.

Under Open MPI and Slurm JAX gives each task the one GPU of its local number, so there must be as
many tasks on a host as GPUs.
"""

import os
import re

import jax

from llama_jax.errors import InputError

# What says that this process may be one of several, in the order in which JAX looks.
_CLUSTERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE",),
    "Slurm": ("SLURM_JOB_ID", "SLURM_NTASKS"),
    "TPU processes": ("TPU_PROCESS_ADDRESSES",),
    "TPU pod": ("TPU_WORKER_HOSTNAMES",),
    "Kubernetes": ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
}
# What most often keeps JAX from finding the others there.
_HINTS = {
    "Slurm": "start every task with srun, or ",
    "Kubernetes": "install jax[k8s] and let the pod read its job, or ",
    "Cloud TPU": "set TPU_SKIP_MDS_QUERY=1 on a host alone, without Google's metadata server, or ",
}
# How one process is started there.
_ALONE = {
    "Open MPI": "start one, with mpirun -n 1",
    "Slurm": "start one, with srun --ntasks=1",
    "TPU processes": "start one, without TPU_PROCESS_ADDRESSES",
    "TPU pod": "take a slice with one host",
}


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    peer_timeout: int = 30,
) -> str:
    """Connects this process with the others of its job.

    Args:
      coordinator: `host:port` of process 0, with the other two; without all three, the cluster that
        the environment names is asked.
      num_processes: how many processes the job has.
      process_id: which of them this is, from 0.
      peer_timeout: seconds without a sign of life after which a process is taken for dead, and all
        others end (SIGABRT), so that whoever started them can start all again.

    Returns:
      One line that says what was found.

    Raises `InputError` if only some of the three are given, or the others cannot be reached.
    """
    given = {
        "coordinator": coordinator,
        "num-processes": num_processes,
        "process-id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise InputError(f"give --{' and --'.join(missing)} too, or none of the three")
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(f"--coordinator {coordinator}: must be HOST:PORT")
    found = "given" if not missing else detect_cluster()
    if found is None:
        return "one process (no cluster found; --coordinator names one)"
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=peer_timeout
        )
    except Exception as error:  # each cluster's library raises its own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{found} cluster: the job's processes did not find each other ({reason}); "
            f"{_HINTS.get(found, '')}give --coordinator HOST:PORT, --num-processes and --process-id"
        ) from error
    return f"process {jax.process_index()} of {jax.process_count()} ({found})"


def detect_cluster() -> str | None:
    """The kind of cluster in which this process is one of several, or may be: that of an indexed
    Kubernetes job and of a Cloud TPU is not known before JAX has asked."""
    for kind, names in _CLUSTERS.items():
        values = [os.environ.get(name) for name in names]
        if None not in values and _HAS_PEERS.get(kind, bool)(values[-1]):
            return kind
    return "Cloud TPU" if _metadata_server_knows() else None


def check_alone(work: str) -> None:
    """Raises `InputError` if the environment says for certain that this process is one of several,
    of which each would do `work` by itself."""
    kind = detect_cluster()
    if kind in _HAS_PEERS:
        raise InputError(
            f"this is one of several processes ({kind}), and each would {work} by itself: "
            f"{_ALONE[kind]}"
        )


def _is_over_one(count: str) -> bool:
    return count.isdecimal() and int(count) > 1


def _names_several_hosts(hosts: str) -> bool:
    """Whether a list of hosts for TPUs names peers. On a host alone it is `localhost`, its own name
    or, where the names are not known, a sentence of warning."""
    if _is_over_one(os.environ.get("MEGASCALE_NUM_SLICES", "")):
        return True  # slices of one host each, perhaps
    names = hosts.split(",")
    return len(names) > 1 and not any(re.search(r"\s", name.strip()) for name in names)


def _metadata_server_knows() -> bool:
    """Whether this is a TPU virtual machine whose peers only Google's metadata server names. JAX
    puts `tpu` first where it finds chips, and forbids the question where it finds none."""
    asked = os.environ.keys().isdisjoint({"TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES"})
    return asked and (jax.config.jax_platforms or "").startswith("tpu")


_HAS_PEERS = {
    "Open MPI": _is_over_one,
    "Slurm": _is_over_one,
    "TPU processes": _names_several_hosts,
    "TPU pod": _names_several_hosts,
}
