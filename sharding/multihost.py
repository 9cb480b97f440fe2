"""Joining the processes of a job into one: `initialize`, before anything touches a device.

JAX finds its peers by itself on TPU pods (Google Cloud and GKE), under Slurm, Open MPI and in
indexed Kubernetes jobs; anywhere else the three numbers are given. What is found is printed, as a
job that silently became N jobs of one process is the dearest mistake of its kind.
"""

import os

import jax

from llama_jax.errors import InputError

# What says that this process is one of several, for the environments that JAX knows.
_CLUSTERS = {
    "Slurm": ("SLURM_JOB_ID", "SLURM_NTASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE",),
    "Kubernetes": ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
    "TPU pod": ("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"),
}


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> str:
    """Connects this process with the others of its job.

    Args:
      coordinator: `host:port` of process 0, with the other two; without all three, the cluster that
        the environment names is asked.
      num_processes: how many processes the job has.
      process_id: which of them this is, from 0.

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
    found = "given" if not missing else detect_cluster()
    if found is None:
        return "one process (no cluster found; --coordinator names one)"
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{found} cluster: the job's processes did not find each other ({reason}); give "
            "--coordinator HOST:PORT, --num-processes and --process-id"
        ) from error
    return f"process {jax.process_index()} of {jax.process_count()} ({found})"


def detect_cluster() -> str | None:
    """The kind of cluster whose variables are all set, if it has several processes."""
    for kind, names in _CLUSTERS.items():
        if all(name in os.environ for name in names):
            alone = {"Slurm": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}.get(kind)
            if alone is None or int(os.environ[alone]) > 1:
                return kind
    return None
