"""Event files: what is before a damage is read, and the damage is said."""

import os
import random
import struct

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from infonerf.report.events import checksum, read_scalars
from support.runs import scalars

HUGE = 2**62


def write(folder, first, last, **options):
    with SummaryWriter(folder, **options) as writer:
        for step in range(first, last):
            writer.add_scalar("loss/total", step / 8, step)
            writer.add_scalar("psnr", float("nan") if step == 1 else 20.0, step)
    return max(folder.glob("*tfevents*"), key=os.path.getmtime)


def packed(record: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<Q", len(record) if length is None else length)
    return head + checksum(head) + record + checksum(record)


def test_as_tensorboard_reads_them(tmp_path):
    """Also a later attempt, which takes the place of the points from its first step on."""
    write(tmp_path, 0, 6)
    write(tmp_path, 4, 9, purge_step=4, filename_suffix=".later")
    found, faults = read_scalars(tmp_path)
    assert not faults and {tag: dict(points) for tag, points in found.items()} == {
        tag: {step: value for step, value in points.items() if value == value}
        for tag, points in scalars(tmp_path).items()
    }
    assert [step for step, _ in found["loss/total"]] == list(range(9))


END = {  # what follows three good steps, and what is said of it
    "another wire format": (packed(b"\x0f\x0f\x0f"), "record 7 is none of TensorBoard's"),
    "no UTF-8": (packed(b"\x1a\x04\xff\xfe\xff\xfe"), "record 7 is none of TensorBoard's"),
    "a wrong checksum": (packed(Event(step=7).SerializeToString())[:-1] + b"!", "damaged in the record at byte"),
    "a length that is none": (b"\1" * 40, "damaged at byte"),
    "a huge length": (packed(b"", HUGE), "cut off in the record at byte"),
    "cut in its length": (b"\x05\0\0", "cut off in the record at byte"),
    "cut in its record": (packed(b"x" * 99)[:50], "cut off in the record at byte"),
}


@pytest.mark.parametrize("name", END)
def test_what_is_before_a_damage_is_read(tmp_path, name):
    path, (end, said) = write(tmp_path, 0, 3), END[name]
    path.write_bytes(path.read_bytes() + end)
    found, [fault] = read_scalars(tmp_path)
    assert len(found["loss/total"]) == 3 and fault.startswith(f"{path.name}: {said}") and fault.isprintable()


def test_a_damaged_file_hides_no_later_one(tmp_path):
    path = write(tmp_path, 0, 3)
    path.write_bytes(path.read_bytes()[:-3])
    write(tmp_path, 3, 6, filename_suffix=".later")
    (tmp_path / "events.out.tfevents.folder").mkdir()
    (tmp_path / "events.out.tfevents.gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "events.out.tfevents.pipe")
    found, faults = read_scalars(tmp_path)
    assert [step for step, _ in found["loss/total"]] == list(range(6)) and len(faults) == 1


def test_any_damage_leaves_points_of_the_file_and_one_line(tmp_path):
    path, rng = write(tmp_path, 0, 20), random.Random(0)
    good, whole = path.read_bytes(), dict(read_scalars(tmp_path)[0]["loss/total"])
    for _ in range(300):
        at = rng.randrange(len(good))
        path.write_bytes(good[:at] + rng.choice((b"", b"\0", rng.randbytes(9), good[at + 3 :])))
        found, faults = read_scalars(tmp_path)
        assert set(found.get("loss/total", ())) <= set(whole.items()) and len(faults) <= 1
