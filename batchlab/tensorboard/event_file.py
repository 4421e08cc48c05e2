"""TensorBoard's event files, written without torch and without TensorFlow.

Not through `tensorboard.summary`: it imports TensorFlow if that is installed, and its writer puts the machine's name
into the file name and fails in a separate thread, with a traceback, when the disk is full.
"""

import contextlib
import os
import re
import struct
import time
from pathlib import Path
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from batchlab.recording import disk

EVENTS = "events.out.tfevents.*"
NOT_IN_A_TAG = re.compile(r"[^-/\w.]", re.ASCII)
PNG = b"\x89PNG\r\n\x1a\n"


class EventFile:
    """A new event file in `folder`, which is created; every event is passed to the system as it is added.

    Every method raises StorageError if the disk cannot be written.
    """

    def __init__(self, folder: Path, *, started: float) -> None:
        """`started`, in seconds since 1970, is the time of the events without a time."""
        disk.make_folder(folder)
        self._started = started
        self._descriptor, self._path = _create_event_file(folder)
        try:
            self._write(Event(wall_time=started, file_version="brain.Event:2"))
        except OSError:
            self.close()
            raise

    def scalar(self, tag: str, value: float, *, step: int, wall_time: float) -> None:
        """One point of the curve `tag`, which must be a `tag_of`."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        self._write(Event(wall_time=wall_time, step=step, summary=summary))

    def image(self, tag: str, png: bytes) -> None:
        """A picture, in TensorBoard's IMAGES tab; ValueError if the bytes are not a PNG."""
        if png[:8] != PNG or len(png) < 24:
            raise ValueError(f"{tag} is not a PNG")
        width, height = struct.unpack(">II", png[16:24])  # from the header, which is always the first chunk
        picture = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self.summary(Summary(value=[Summary.Value(tag=tag, image=picture)]))

    def summary(self, summary: Summary) -> None:
        """Adds a summary of the run that belongs to no step: hyperparameters, a layout."""
        self._write(Event(wall_time=self._started, summary=summary))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, event: Event) -> None:
        data = event.SerializeToString()
        header = struct.pack("<Q", len(data))
        record = b"".join(
            (header, struct.pack("<I", masked_crc32c(header)), data, struct.pack("<I", masked_crc32c(data)))
        )
        disk.append(self._descriptor, record, self._path)


def tag_of(name: str) -> str:
    """`name` in the characters TensorBoard allows in a tag."""
    return NOT_IN_A_TAG.sub("_", name).lstrip("/") or "_"


def _create_event_file(folder: Path) -> tuple[int, Path]:
    """TensorBoard reads the files of a run in the order of their names, so a later file needs a later name."""
    while True:
        seconds, rest = divmod(time.time_ns(), 10**9)
        path = folder / f"events.out.tfevents.{seconds:010d}.{rest:09d}.{os.getpid()}"
        with contextlib.suppress(FileExistsError):
            return disk.create(path), path
