"""The numbers of a training as TensorBoard reads them; over the folders of models it shows nights side by side."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from training.ranks import rank

Tell = Callable[[int, Mapping[str, float]], None]


@contextmanager
def event_file(folder: Path) -> Iterator[Tell]:
    """Open a new event file in a folder and yield tell(step, values by name); what was told is on disk at once.

    Of several processes the first writes.
    """
    if rank():
        yield lambda step, values: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(folder / "events"))

    def tell(step: int, values: Mapping[str, float]) -> None:
        """Write values by name at a step, with the time of now, and flush."""
        numbers = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=numbers)))
        writer.flush()

    try:
        yield tell
    finally:
        writer.close()
