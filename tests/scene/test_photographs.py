"""Image files: what is read, what is refused, backgrounds, halving, depth at other sizes."""

import os
import struct
import subprocess
import tracemalloc
import warnings
import zlib
from itertools import pairwise

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from infonerf.scene.cameras import Pixels
from infonerf.scene.photographs import composited, half_intrinsics, half_size, image_size, nearest, read_pixels
from support.scenes import HEIGHT, WIDTH, memory_scene, random_pixels, refused


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_read_pixels(tmp_path, channels):
    pixels = random_pixels(0, channels)
    iio.imwrite(tmp_path / "a.png", pixels[..., 0] if channels == 1 else pixels)
    found = read_pixels(tmp_path / "a.png", pixels.shape[:2])
    assert found.dtype == np.float32
    assert found.shape == (*pixels.shape[:2], max(channels, 3))
    np.testing.assert_allclose(found, np.broadcast_to(pixels / 255, found.shape), atol=1e-7)


def test_read_pixels_of_16_bit_grey(tmp_path):
    pixels = np.arange(80, dtype=np.uint16).reshape(8, 10) * 829
    iio.imwrite(tmp_path / "a.png", pixels)
    np.testing.assert_allclose(read_pixels(tmp_path / "a.png")[..., 1], pixels / 65535, atol=1e-7)


@pytest.mark.parametrize("channels", [3, 4])
def test_read_pixels_of_16_bit_colour_keeps_8_bits(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 10, channels), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., [2, 1, 0, 3][:channels]])  # cv2 takes BGR
    np.testing.assert_allclose(read_pixels(tmp_path / "a.png"), pixels / 65535, atol=1 / 255)


@pytest.mark.parametrize("keep", [0, 8, 60, 200])
def test_read_pixels_refuses_a_truncated_image(tmp_path, keep):
    iio.imwrite(tmp_path / "a.png", random_pixels(0, 4))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:keep])
    with refused(r"a\.png: cannot be read as an image \(.+\)"):
        read_pixels(tmp_path / "a.png")


def test_read_pixels_refuses_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("not an image\n" * 20)
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "folder.png", "none.png"):
        with refused(f"{name}: cannot be read as an image"):
            read_pixels(tmp_path / name)


def test_read_pixels_of_grey_with_alpha(tmp_path):
    pixels = random_pixels(0, 2)
    iio.imwrite(tmp_path / "a.png", pixels)
    np.testing.assert_allclose(read_pixels(tmp_path / "a.png"), pixels[..., [0, 0, 0, 1]] / 255, atol=1e-7)


def test_read_pixels_of_one_bit(tmp_path):
    bits = random_pixels(0, 1)[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.repeat(bits[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_read_pixels_refuses_an_animation(tmp_path, kind):
    frames = [Image.fromarray(random_pixels(i, 3)) for i in range(3)]
    frames[0].save(tmp_path / "a.png", kind, save_all=True, append_images=frames[1:])
    with refused(r"a\.png: found an animation of 3 images, expected one image"):
        read_pixels(tmp_path / "a.png")


def png_header(width, height):
    """A whole PNG but for its pixels."""
    parts = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)


def test_read_pixels_of_a_header_that_claims_much(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(60_000, 60_000))
    with refused(r"a\.png: cannot be read as an image \(Image size .* exceeds limit"):
        read_pixels(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png_header(9000, 9000))
    with refused(r"a\.png: cannot be read as an image \(too few bytes for 9000 x 9000 pixels\)"):
        read_pixels(tmp_path / "a.png")
    with refused(r"a\.png: the image is 9000 x 9000, expected 10 x 8"):  # without decoding it
        read_pixels(tmp_path / "a.png", (8, 10))


def test_read_pixels_of_an_image_that_packs_well(tmp_path):
    Image.new("1", (3000, 3000)).save(tmp_path / "a.png", optimize=True)
    assert read_pixels(tmp_path / "a.png").shape == (3000, 3000, 3)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_read_pixels_of_few_bytes_that_claim_many_pixels(tmp_path, kind):
    """A JPEG's decoder would fill in what is missing; a WebP may stand for any number of pixels of one colour."""
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (64, 48), (9, 99, 199)).save(path, **({"lossless": True} if kind == "webp" else {}))
    content, colour = path.read_bytes(), read_pixels(path)[0, 0]
    Image.new("RGB", (4000, 3000), (9, 99, 199)).save(path, **({"lossless": True} if kind == "webp" else {}))
    assert (read_pixels(path) == colour).all()  # a whole one of one colour
    if kind == "jpg":
        at = content.find(b"\xff\xc0") + 5
        path.write_bytes(content[:at] + struct.pack(">HH", 9000, 10_000) + content[at + 4:])
    else:
        bits = struct.unpack("<I", content[21:25])[0] >> 28 << 28 | 8999 << 14 | 9999
        path.write_bytes(content[:21] + struct.pack("<I", bits) + content[25:])
    with refused(rf"a\.{kind}: cannot be read as an image \(too few bytes for 10000 x 9000 pixels\)"):
        read_pixels(path)


def test_read_pixels_makes_no_room_for_a_chunk_that_is_not_there(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(random_pixels(0, 3)).save(path)
    content = path.read_bytes()
    at = content.find(b"IDAT") - 4
    path.write_bytes(content[:at] + struct.pack(">I", 2**31 - 1) + content[at + 4:])
    tracemalloc.start()
    assert read_pixels(path).shape == (HEIGHT, WIDTH, 3)  # all of its pixels are there
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_pillow_warns_of_nothing_beside_our_own_line(tmp_path):
    """A palette's transparency is read as it is; as many pixels as here need no warning."""
    image = Image.fromarray(random_pixels(0, 3)).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    Image.new("L", (9500, 9500)).save(tmp_path / "b.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_pixels(tmp_path / "a.png").shape == (HEIGHT, WIDTH, 4)
        assert image_size(tmp_path / "b.png") == (9500, 9500)


def test_read_pixels_waits_for_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with refused(r"a\.png: cannot be read as an image \(no file\)"):
        read_pixels(tmp_path / "a.png")


def test_read_pixels_starts_no_other_program(tmp_path, monkeypatch):
    """Of an image in PostScript, which Pillow knows, Ghostscript would run what is in the file."""
    monkeypatch.setattr(subprocess, "Popen", None)
    Image.fromarray(random_pixels(0, 3)).save(tmp_path / "a.png", "EPS")
    with refused(r"a\.png: cannot be read as an image \(no PNG, JPEG, WEBP\)"):
        read_pixels(tmp_path / "a.png")


def test_read_pixels_does_not_take_ink_for_alpha(tmp_path):
    """A JPEG in CMYK has four channels, too."""
    image = Image.new("CMYK", (10, 8), (0, 255, 255, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_pixels(tmp_path / "a.jpg"), np.broadcast_to([1, 0, 0], (8, 10, 3)), atol=0.02)


@pytest.mark.parametrize(("mode", "transparency"), [("P", 0), ("P", bytes(range(256))), ("RGB", (7, 7, 7)), ("L", 7)])
def test_read_pixels_knows_a_transparent_colour(tmp_path, mode, transparency):
    image = Image.new("RGB", (10, 8), (7, 7, 7))
    image.paste((200, 100, 50), (5, 0, 10, 8))
    image.convert(mode).save(tmp_path / "a.png", transparency=transparency)
    found = read_pixels(tmp_path / "a.png")
    np.testing.assert_allclose(found, np.asarray(Image.open(tmp_path / "a.png").convert("RGBA")) / 255, atol=1e-7)
    assert found[0, 0, 3] != found[0, 9, 3]


def test_read_pixels_refuses_a_transparent_value_of_16_bits(tmp_path):
    Image.fromarray(np.zeros((8, 10), np.uint16)).save(tmp_path / "a.png", transparency=0)
    with refused(r"a\.png: found 16-bit grey of which one value is transparent"):
        read_pixels(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_read_pixels_does_not_turn_an_image_as_its_exif_says(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, quality=100)
    np.testing.assert_allclose(read_pixels(tmp_path / name), pixels / 255, atol=0.02)


def test_read_pixels_of_a_photograph_with_a_preview(tmp_path):
    photograph, preview = (Image.fromarray(np.full((8, 10, 3), grey, np.uint8)) for grey in (200, 0))
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    np.testing.assert_allclose(read_pixels(tmp_path / "a.jpg"), np.full((8, 10, 3), 200 / 255), atol=0.02)


def test_read_pixels_refuses_another_size(tmp_path):
    iio.imwrite(tmp_path / "a.png", random_pixels(0, 3, height=8, width=10))
    with refused(r"a\.png: the image is 10 x 8, expected 8 x 10"):
        read_pixels(tmp_path / "a.png", (10, 8))


def test_on_background():
    pixels = np.array([[[0.2, 0.4, 0.6, 0.25], [0.2, 0.4, 0.6, 1.0], [0.2, 0.4, 0.6, 0.0]]], np.float32)
    rgb = pixels[..., :3]
    white = [[[0.8, 0.85, 0.9], [0.2, 0.4, 0.6], [1, 1, 1]]]  # 0.2 * 0.25 + 0.75, ...
    np.testing.assert_allclose(composited(pixels, white=True), white, atol=1e-6)
    black = [[[0.05, 0.1, 0.15], [0.2, 0.4, 0.6], [0, 0, 0]]]
    np.testing.assert_allclose(composited(pixels, white=False), black, atol=1e-6)
    np.testing.assert_array_equal(composited(pixels, white=False, drop_alpha=True), rgb)
    for white, drop_alpha in ((True, False), (False, False), (False, True)):
        np.testing.assert_array_equal(composited(rgb, white, drop_alpha), rgb)


def shares(n: int) -> np.ndarray:
    """(n//2 n) The share of each of n pixels in each of n // 2 equal parts of their row."""
    edges = np.linspace(0, n, n // 2 + 1)
    overlaps = [[max(0, min(b, i + 1) - max(a, i)) for i in range(n)] for a, b in pairwise(edges)]
    return np.array(overlaps) * (n // 2) / n


@pytest.mark.parametrize("shape", [(8, 10, 3), (7, 9, 4), (5, 2, 3), (2, 3, 4)])
def test_half_size_averages_areas(shape):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    halved = half_size(array)
    expected = np.einsum("ih, hwc, jw -> ijc", shares(shape[0]), array, shares(shape[1]))
    assert halved.shape == (shape[0] // 2, shape[1] // 2, shape[2])
    np.testing.assert_allclose(halved, expected, atol=1e-6)


def test_half_intrinsics():
    intrinsics = np.array([[20.0, 22, 5, 4], [30, 33, 6, 3]])
    halved, height, width = half_intrinsics(intrinsics, 8, 10)
    assert (height, width) == (4, 5)
    np.testing.assert_allclose(halved, intrinsics / 2)
    halved, height, width = half_intrinsics(intrinsics, 7, 9)
    assert (height, width) == (3, 4)
    np.testing.assert_allclose(halved, intrinsics * [4 / 9, 3 / 7, 4 / 9, 3 / 7])


@pytest.mark.parametrize(("height", "width"), [(1, 8), (8, 1)])
def test_half_intrinsics_refuses_one_pixel(height, width):
    with refused(f"--half_res: the images are {width} x {height}, expected at least 2 x 2"):
        half_intrinsics(np.ones((1, 4)), height, width)


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize(("factor", "height", "width"), [(1, 8, 10), (2, 4, 5), (3, 2, 3), (10, 1, 1)])
def test_nearest_takes_the_pixel_of_the_nearest_ray(pixel_center, factor, height, width):
    """Of all pixels of the full size, found by trying each, with the cameras that render_factor makes."""
    full = memory_scene(pixel_center=pixel_center).cameras.at([2])
    small = full.scaled(factor).image_rays().directions
    assert len(small) == height * width
    rows, cols = (torch.from_numpy(index.ravel()) for index in np.indices((HEIGHT, WIDTH)))
    large = full.rays(Pixels(torch.zeros_like(rows), rows, cols)).directions
    rotation = full.poses[0, :, :3]
    focal = full.intrinsics[0, :2]
    found = nearest(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH), height, width, pixel_center)
    assert found.shape == (height, width)
    for direction, number in zip(small, found.ravel(), strict=True):
        in_camera = (large - direction) @ rotation
        pixels = (in_camera[:, :2] * focal).norm(dim=-1)  # how far apart in the image of full size
        assert pixels[number] <= pixels.min() + 1e-5
