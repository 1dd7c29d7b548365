"""Frames of a video, chosen by sharpness."""

import cv2
import imageio.v3 as iio
import numpy as np
import pytest

from infonerf.capture.videos import frames_of, sharpest, sharpness, write_frames
from infonerf.system.errors import InputError

SHARP = {2, 9, 10, 17}  # of 20 frames


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Noise, which is blurred in all but a few frames; the left side is as bright as the frame's number is high."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    frames = []
    for number in range(20):
        frame = noise if number in SHARP else cv2.GaussianBlur(noise, (0, 0), 2)
        frame = frame.copy()
        frame[:, :24] = number * 12
        frames.append(frame)
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    iio.imwrite(path, np.stack(frames), fps=10, codec="libx264", macro_block_size=1,
                ffmpeg_params=["-crf", "10", "-bf", "0"])  # fmt: skip
    return path


def test_sharpness_falls_with_blur():
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    values = [sharpness(noise), *(sharpness(cv2.GaussianBlur(noise, (0, 0), sigma)) for sigma in (0.5, 1, 2))]
    assert values == sorted(values, reverse=True)
    assert sharpness(np.full((40, 40, 3), 7, np.uint8)) == 0


def test_sharpness_of_large_frames_is_that_of_smaller_ones():
    grey = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (320, 1280, 3), dtype=np.uint8), (0, 0), 3)
    large = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert sharpness(large) == pytest.approx(sharpness(grey), rel=0.05)


def test_the_sharpest_of_equal_stretches():
    assert sharpest([1, 5, 2, 9, 0, 3], 3) == [1, 3, 5]
    assert sharpest([1, 5, 2, 9, 0, 3, 7], 2) == [3, 6]
    assert sharpest([3, 1, 2], 10) == [0, 1, 2]
    assert sharpest([2, 2, 2, 2], 2) == [0, 2]


def test_frames_of_a_video(video):
    frames = list(frames_of(video))
    assert len(frames) == 20
    assert frames[0].shape == (48, 64, 3)
    means = [frame[:, :20].mean() for frame in frames]
    assert means == sorted(means)


def test_the_sharp_frames_are_written(video, tmp_path):
    steps = []
    paths = write_frames(video, 4, tmp_path, lambda: steps.append(1))
    assert [path.name for path in paths] == [f"frame_{number:06d}.jpg" for number in (2, 9, 10, 17)]
    assert sorted(tmp_path.iterdir()) == paths
    assert len(steps) == 20
    assert iio.imread(paths[3])[:, :20].mean() == pytest.approx(17 * 12, abs=5)


def test_of_a_short_video_all_frames(video, tmp_path):
    assert len(write_frames(video, 100, tmp_path, lambda: None)) == 20


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(100)])
def test_not_a_video(tmp_path, content, capfd):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read as a video"):
        write_frames(path, 4, tmp_path, lambda: None)
    assert capfd.readouterr() == ("", "")
