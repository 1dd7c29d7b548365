"""Scalars of TensorBoard's event files, as far as these can be read.

A file is records of a length (8 bytes), its checksum (4), a message (protocol buffers), and its checksum (4).
"""

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

Points = list[tuple[int, float]]


class Damaged(Exception):
    """What is wrong with a file, in words."""


def read_scalars(logdir: Path) -> tuple[dict[str, Points], list[str]]:
    """The scalars of a folder's event files, tag -> (step, value) points, finite ones, in the order of steps; and what
    could not be read, a line a file. A later attempt of a run takes the place of the points from its first step on."""
    scalars: dict[str, Points] = {}
    faults = []
    for path in sorted(path for path in logdir.glob("*tfevents*") if path.is_file()):
        try:
            for event in events(path):
                add(event, scalars)
        except (Damaged, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            faults.append(f"{path.name}: {reason}; its curves are shown up to there")
    return {tag: sorted(points) for tag, points in scalars.items() if points}, faults


def add(event, scalars: dict[str, Points]) -> None:
    if event.HasField("session_log") and event.session_log.status == event.session_log.START:
        for tag, points in scalars.items():
            scalars[tag] = [point for point in points if point[0] < event.step]
    for value in event.summary.value:
        if value.WhichOneof("value") == "simple_value" and math.isfinite(value.simple_value):
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))


def events(path: Path) -> Iterator:
    """The messages of a file. Raises Damaged after the last one that is whole."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event  # slow to import

    for number, record in enumerate(records(path)):
        try:
            yield Event.FromString(record)
        except DecodeError as error:
            raise Damaged(f"record {number} is none of TensorBoard's") from error


def checksum(data: bytes) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return struct.pack("<I", masked_crc32c(data))


def records(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while head := file.read(12):
            at, length = file.tell() - len(head), int.from_bytes(head[:8], "little")
            if len(head) == 12 and head[8:] != checksum(head[:8]):
                raise Damaged(f"damaged at byte {at}")
            if len(head) < 12 or length > size - at - 16:
                raise Damaged(f"cut off in the record at byte {at}")
            record = file.read(length)
            if file.read(4) != checksum(record):
                raise Damaged(f"damaged in the record at byte {at}")
            yield record
