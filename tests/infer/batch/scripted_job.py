"""Jobs whose answers are scripted, in processes that can be killed.

Everything but the model is real: the files, the claims, the loop. What a row is answered follows
from its prompt and its seed, in several steps. Importing takes longer than a job, so a `Nursery`
has a process that has imported everything and forks the others.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from infer.answers import AnswerDelta, AnswerRequest
from infer.batch.job import Job
from infer.batch.manifest import Manifest
from infer.batch.row_output import RowOutputs
from infer.batch.row_request import row_seed
from infer.batch.row_table import scan_rows
from infer.batch.run_job import JobRun, run_job
from infer.protocol import ParsedRequest, RequestError
from infer.sampling import SamplingParameters
from llama_jax.batch_files.batch_row import BatchRow

SLOTS = 4
JOB_SEED = 7


def answer_to(request: AnswerRequest, index: int) -> list[str]:
    """The pieces of sample `index`: as many as the prompt says."""
    seed = (request.sampling.seed + index) % 2**32
    return [f"{piece}:{seed + piece} " for piece in range(request.prompt[0])]


class ScriptedAnswering:
    """In the place of `infer.answers.Answering`: a piece of text a step for `SLOTS` requests."""

    def __init__(self, pause: float = 0.0):
        self.pause = pause
        self.requests: dict[int, AnswerRequest] = {}
        self.added: list[int] = []  # the first id of each prompt, in order
        self.most = 0
        self._sent: dict[int, int] = {}
        self._next = 0

    def add(self, request: AnswerRequest) -> int:
        if request.prompt[0] > 100:
            raise RequestError("prompt: is over the context", param="prompt")
        self._next += 1
        self.requests[self._next], self._sent[self._next] = request, 0
        self.added.append(request.prompt[0])
        self.most = max(self.most, len(self.requests))
        return self._next

    def cancel(self, answer_id: int) -> None:
        self.requests.pop(answer_id, None)

    def step(self) -> list[AnswerDelta]:
        time.sleep(self.pause)
        deltas = []
        for answer_id in list(self.requests)[:SLOTS]:
            request = self.requests[answer_id]
            place = self._sent[answer_id]
            self._sent[answer_id] += 1
            is_last = place + 1 >= request.prompt[0]
            fails = is_last and request.prompt[0] == 13
            deltas += [
                AnswerDelta(
                    answer_id, index, text=answer_to(request, index)[place], tokens=(place,),
                    num_new_tokens=place + 1,
                    finish_reason="error" if fails else "length" if is_last else None,
                    error="logits are not finite" if fails else None,
                )
                for index in range(request.n)
            ]  # fmt: skip
            if is_last:
                del self.requests[answer_id]
        return deltas


def parse(row: BatchRow) -> ParsedRequest:
    """A prompt that is a number: so many pieces the answer has."""
    if row.body.get("temperature", 0) < 0:
        raise RequestError("temperature: must be 0 or more", param="temperature")
    sampling = SamplingParameters(0.0, seed=row_seed(JOB_SEED, row.custom_id))
    prompts = row.body["prompt"]
    prompts = prompts if isinstance(prompts, list) else [prompts]
    answers = [
        AnswerRequest((int(prompt), 1), sampling, 200, frozenset(), n=row.body.get("n", 1))
        for prompt in prompts
    ]
    return ParsedRequest("completion", "scripted", tuple(answers))


def run_scripted(
    source: Path, output: Path, *, pause: float = 0.0, answering: ScriptedAnswering | None = None
) -> tuple[Job, JobRun | None]:
    """Runs the job from where it is; None for one that is finished."""
    table = scan_rows(source, default_limit=lambda row: 10)
    job = Job(output)
    job.open(
        Manifest(
            table.sha256, table.num_bytes, len(table), "scripted", "f" * 64, {}, "0", created=1000
        )
    )
    if job.manifest.finished is not None:
        return job, None
    run = run_job(
        job, table, answering=answering or ScriptedAnswering(pause), parse=parse,
        outputs=RowOutputs(job.manifest.input_sha256, job.manifest.created), slots=SLOTS,
        say=lambda line: print(line, file=sys.stderr), quiet=True,
    )  # fmt: skip
    job.close()
    return job, run


class Nursery:
    """Starts jobs in processes of their own, in the folder `folder`, and ends what is left."""

    def __init__(self, folder: Path):
        self._folder = folder
        root = Path(__file__).parents[3]
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        self._count = 0

    def start(self, source: Path, output: Path, pause: float = 0.001) -> "Child":
        self._count += 1
        said = self._folder / f"said-{self._count}"
        pid = self._ask(
            {"source": str(source), "output": str(output), "pause": pause, "said": str(said)}
        )
        return Child(pid, said, self._ask)

    def close(self) -> None:
        self._parent.communicate()

    def _ask(self, command: dict) -> int:
        self._parent.stdin.write(json.dumps(command) + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())


@dataclasses.dataclass
class Child:
    """A process that runs a job. `said` has its stderr and, at its end, `done` and its share."""

    pid: int
    said: Path
    ask: Callable[[dict], int]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(self.ask({"wait": self.pid}))

    def share(self) -> int:
        """Rows that it has finished, of a process that came to its end."""
        code, said = self.wait(), self.said.read_text()
        assert code == 0, said
        return int(said.rpartition("done ")[2])


def serve() -> None:
    """The process of a `Nursery`."""
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            print(os.waitpid(command["wait"], 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        said = os.open(command["said"], os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 2)
        try:
            _, run = run_scripted(
                Path(command["source"]), Path(command["output"]), pause=command["pause"]
            )
            code = 0
            if run is not None and run.exit_code is not None:
                code = run.exit_code
            print("done", run.work.rows if run else 0, file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)


if __name__ == "__main__":
    serve()
