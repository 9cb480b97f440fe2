"""RUN_DIR/tensorboard: the numbers of a run for TensorBoard, through tensorboardX.

Of tensorboardX only the file format is used. Its `SummaryWriter` hands events to a thread through
a bounded queue: when the disk is full the thread dies and the loop would wait for it for ever.
Here an event is written at once, and a full disk is an error where it happens.
"""

import os
import time
from pathlib import Path


class TensorBoard:
    """One file of events; a run that is resumed writes another beside it."""

    def __init__(self, folder: Path, *, resume_step: int | None):
        """Makes `folder` if need be. Events of steps after `resume_step` (all if None) that earlier
        files hold are marked as superseded: TensorBoard no longer shows them."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # Two processes in one second, as in tests, must not share a name.
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}.{os.getpid()}")
        first = 0 if resume_step is None else resume_step + 1
        began = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=first, session_log=began))
        self._writer.flush()

    def write(self, step: int, time: float, values: dict[str, float]) -> None:
        """Scalars by tag; a tag such as `train/loss` is a group and a name."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.write_event(Event(wall_time=time, step=step, summary=Summary(value=scalars)))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
