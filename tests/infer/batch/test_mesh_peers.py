"""Two processes of one mesh: the same rows in the same order for both, one of them writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from infer.batch.mesh_peers import MeshPeers

from .scripted_job import run_scripted

ROOT = Path(__file__).parents[3]


def test_a_process_alone_agrees_with_itself():
    peers = MeshPeers()
    assert peers.is_first
    assert peers.agree([3, 2**40], most=1) == [3, 2**40]


def test_both_processes_give_their_engine_the_same_rows(tmp_path):
    source = tmp_path / "in.jsonl"
    with open(source, "w") as file:
        for number in range(60):
            file.write(json.dumps({"prompt": str(number % 7 + 1)}) + "\n")
        file.write("broken\n")
    job, _ = run_scripted(source, tmp_path / "alone.jsonl")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    output = tmp_path / "OUT.jsonl"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("mesh_process.py"), str(port), str(number),
             source, output],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (out.splitlines()[-1].split() for out, _ in said)
    assert first == second and first[0] == "None" and len(first) == 61
    assert output.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert len(list(tmp_path.glob("OUT.jsonl.parts"))) == 0
