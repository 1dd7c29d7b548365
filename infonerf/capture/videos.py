"""Frames of a video: the sharpest of equally long stretches."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from infonerf.system.errors import InputError

LONGEST = 1280  # pixels, at which sharpness is measured: noise of larger frames is no sharpness


def sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian of a frame h w 3, uint8."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = LONGEST / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def sharpest(values: Sequence[float], n: int) -> list[int]:
    """The place of the largest value of each of n equal stretches; of fewer values than n, all places."""
    stretches = np.array_split(np.arange(len(values)), min(n, len(values)))
    return [int(stretch[np.argmax(np.asarray(values)[stretch])]) for stretch in stretches]


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video one by one, h w 3 BGR, turned upright. Raises InputError where there are none."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: a broken file is told in our own words
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    cv2.utils.logging.setLogLevel(level)
    try:
        good, frame = capture.read()
        if not good:
            raise InputError(f"{path}: cannot be read as a video, expected a folder of photographs or a video")
        while good:
            yield frame
            good, frame = capture.read()
    finally:
        capture.release()


def write_frames(path: Path, n: int, folder: Path, step: Callable[[], None]) -> list[Path]:
    """Write the n sharpest frames of a video, one of each stretch of it, to a folder as JPEG: frame_NUMBER.jpg. The
    video is read twice, since how many frames it has is known for sure only at its end. `step`: called for each frame
    looked at."""
    values = []
    for frame in frames_of(path):
        values.append(sharpness(frame))
        step()
    chosen, written = set(sharpest(values, n)), []
    for number, frame in enumerate(frames_of(path)):
        if number in chosen:
            file = folder / f"frame_{number:06d}.jpg"
            quality = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                       cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
            file.write_bytes(cv2.imencode(".jpg", frame, quality)[1].tobytes())
            written.append(file)
    return written
