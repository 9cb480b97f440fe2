"""Two processes of one mesh: the same rows in the same order for both, one of them writes."""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from infer.batch.mesh_peers import MeshPeers

from .scripted_job import run_scripted

ROOT = Path(__file__).parents[3]


def failing(error):
    raise error


def test_a_process_alone_agrees_with_itself():
    peers = MeshPeers()
    assert peers.is_first
    assert peers.agree([3, 2**40], most=1) == [3, 2**40]
    assert peers.gather("é") == ["é"] and peers.together(lambda: 5) == 5
    with pytest.raises(OSError, match="^no space$"):
        peers.together(partial(failing, OSError("no space")))


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
    outs = [out.splitlines()[-3:] for out, _ in said]
    assert outs[0][0] == outs[1][0] == "['', 'ééé'] done"
    assert [lines[1] for lines in outs] == [
        "InputError process 1 cannot begin: no space left",
        "OSError no space left",
    ]
    first, second = (lines[-1].split() for lines in outs)
    assert first == second and first[0] == "None" and len(first) == 61
    assert output.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert len(list(tmp_path.glob("OUT.jsonl.parts"))) == 0
