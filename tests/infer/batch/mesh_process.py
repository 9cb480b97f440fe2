"""`python mesh_process.py PORT ID IN OUT`: one of two processes of a mesh, with scripted answers.

Prints what both said to each other, what the other's failure became, and the prompts that its
engine was given, in their order.
"""

import sys
from pathlib import Path

import jax
from scripted_job import SLOTS, ScriptedAnswering, parse

from infer.batch.job import Job
from infer.batch.manifest import Manifest
from infer.batch.mesh_peers import MeshPeers
from infer.batch.row_output import RowOutputs
from infer.batch.row_table import scan_rows
from infer.batch.run_job import run_job
from llama_jax.errors import InputError

port, number, source, output = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(number))
table = scan_rows(Path(source), default_limit=lambda row: 10)
job = Job(Path(output))
wanted = Manifest(table.sha256, table.num_bytes, len(table), "m", "f" * 64, {}, "0", created=1000)
if jax.process_index() == 0:
    job.open(wanted)
else:
    job.manifest = wanted
answering = ScriptedAnswering()
run = run_job(
    job,
    table,
    answering=answering,
    parse=parse,
    outputs=RowOutputs(wanted.input_sha256, wanted.created),
    slots=SLOTS,
    say=lambda line: None,
    quiet=True,
)
peers = MeshPeers()
print(peers.gather("é" * 3 * jax.process_index()), peers.together(lambda: "done"))


def fail_in_one():
    if jax.process_index() == 1:
        raise OSError("no space left")


try:
    peers.together(fail_in_one)
except (InputError, OSError) as error:
    print(type(error).__name__, error)
print(run.exit_code, *answering.added)
