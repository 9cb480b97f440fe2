"""Opening a job in all processes of a mesh: process 0 does, if they all have the same one."""

import dataclasses
import json

from infer.batch.job import Job
from infer.batch.manifest import Manifest
from infer.batch.mesh_peers import MeshPeers
from llama_jax.errors import InputError


def open_job(job: Job, wanted: Manifest, peers: MeshPeers) -> None:
    """Starts the job, or joins it, or goes on with it; see `Job.open`. `job.manifest` is the same
    everywhere then; claims has process 0 only.

    Raises `InputError` in all processes if the files there are of another job, or if a process has
    another input, model, version or options than process 0.
    """
    first = _of_first(wanted, peers)

    def compare() -> None:
        difference = first.difference(wanted)
        if difference is not None:
            raise InputError(f"process 0 was started with something else: {difference}")

    peers.together(compare)
    peers.together(lambda: job.open(wanted) if peers.is_first else None)
    share_manifest(job, peers)


def share_manifest(job: Job, peers: MeshPeers) -> None:
    """Tells the others how the job stands; all must call it."""
    job.manifest = _of_first(job.manifest, peers)


def _of_first(manifest: Manifest | None, peers: MeshPeers) -> Manifest:
    """The manifest that process 0 has."""
    text = "" if manifest is None else json.dumps(dataclasses.asdict(manifest))
    return Manifest(**json.loads(peers.gather(text)[0]))
