"""The loop: rows from the supply to the server, answers from the server to the disk.

So many requests are under way as were allowed, whatever the size of the job; each row is kept as
soon as it is there. A signal asks nothing more and waits for what is under way, which may have been
paid for; another one ends at once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from infer.batch.part_file import FinishedRow
from infer.batch.row_output import RowOutputs
from infer.batch.workbench import Workbench
from infer.protocol.request_error import RequestError
from infer.remote.remote_client import NoServer, RemoteClient
from infer.remote.remote_request import checked_response
from llama_jax.batch_files.batch_row import BatchRow, RowError
from llama_jax.errors import InputError

_SECONDS_BETWEEN_LOOKS = 0.5  # for signals, and for rows of other processes


@dataclass
class RemoteRunner:
    """Has rows answered until there are none.

    Attributes:
      bench: of the job.
      outputs: writes its rows.
      client: of the server.
      request: path and body for a row.
      concurrency: requests under way at most.
    """

    bench: Workbench
    outputs: RowOutputs
    client: RemoteClient
    request: Callable[[BatchRow], tuple[str, dict[str, Any]]]
    concurrency: int

    async def run(self) -> bool:
        """Whether the job has come to its end; if not, this process was told to stop.

        Raises `InputError` if the input has changed meanwhile, or nothing can be asked there; what
        was answered until then is kept.
        """
        under_way: set[asyncio.Task[FinishedRow]] = set()
        step = 0
        try:
            with open(self.bench.table.path, "rb") as file:
                while True:
                    step += 1
                    is_told = self.bench.stop.requested(step)
                    if not is_told:
                        self._begin(under_way, file)
                    if not under_way:
                        if is_told:
                            return False
                        if self.bench.supply.end():
                            return True
                        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
                        continue
                    done, under_way = await asyncio.wait(
                        under_way,
                        timeout=_SECONDS_BETWEEN_LOOKS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    self._keep(done)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _begin(self, under_way: set[asyncio.Task[FinishedRow]], file: BinaryIO) -> None:
        while len(under_way) < self.concurrency and (rows := self.bench.supply.next_rows(1)):
            for row in rows:
                under_way.add(asyncio.create_task(self._answer(row, file)))

    async def _answer(self, row: int, file: BinaryIO) -> FinishedRow:
        table, outputs = self.bench.table, self.outputs
        line = int(table.rows["line"][row])
        try:
            asked = table.read(file, row)
        except RowError as error:
            self.bench.progress.failed(line, str(error))
            return outputs.refused(row, line, error.custom_id, error, is_openai=False)
        try:
            path, body = self.request(asked)
            response = await self.client.ask(path, body)
            try:
                response = checked_response(asked, response)
            except InputError as error:
                raise RequestError(f"the response: {error}", status=502) from error
        except RequestError as error:
            self.bench.progress.failed(line, str(error))
            is_openai = not asked.is_plain
            return outputs.refused(row, line, asked.custom_id, error, is_openai=is_openai)
        finished = outputs.answered(row, asked, response)
        self.bench.progress.count(finished.new_tokens)
        return finished

    def _keep(self, done: set[asyncio.Task[FinishedRow]]) -> None:
        """Brings what has finished to the disk, and then raises what went wrong for all."""
        failures = [task.exception() for task in done if task.exception() is not None]
        rows = [task.result() for task in done if task.exception() is None]
        if rows:
            self.bench.writer.append(rows)
            self.bench.supply.finished(finished.row for finished in rows)
        self.bench.progress.finished(rows)
        self.bench.progress.show(self.bench.supply.share_done)
        # A mistake of ours rather than a server that is away, where there are both.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, NoServer)):
            raise failure
