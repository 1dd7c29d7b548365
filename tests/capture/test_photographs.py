"""Photographs as they come: EXIF, orientation, formats, broken files."""

import numpy as np
import pytest
from PIL import Image

from infonerf.capture import photographs
from infonerf.capture.photographs import (
    EXIF_HEIGHT,
    EXIF_IFD,
    EXIF_WIDTH,
    FOCAL_LENGTH,
    FOCAL_LENGTH_35MM,
    MODEL,
    ORIENTATION,
    PLANE_RESOLUTION,
    PLANE_UNIT,
    Photograph,
    find_photographs,
    focal_of,
    names,
    open_photograph,
    prepare,
    working_name,
    write_undistorted,
)
from infonerf.system.errors import InputError


def exif_of(ifd=None, **tags):
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[{"orientation": ORIENTATION, "model": MODEL}[tag]] = value
    for tag, value in (ifd or {}).items():
        exif.get_ifd(EXIF_IFD)[tag] = value
    return exif


def pixels(height=6, width=10):
    """Each pixel of another colour."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([rows * 40, cols * 25, rows * 0 + 90], axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "working").mkdir()
    return tmp_path / "photos"


def prepared(folder):
    return prepare(sorted(folder.iterdir()), folder.parent / "working", lambda: None)


def working(folder, number):
    return np.asarray(Image.open(folder.parent / "working" / working_name(number)))


# EXIF.


def test_focal_length_as_of_35_mm_film_goes_by_the_diagonal():
    exif = {FOCAL_LENGTH_35MM: 28, FOCAL_LENGTH: 4.0}
    assert focal_of(exif, 4032, 3024) == pytest.approx(28 * 5040 / 43.267)
    assert focal_of(exif, 3024, 4032) == pytest.approx(28 * 5040 / 43.267)
    assert focal_of(exif, 504, 378) == pytest.approx(28 * 630 / 43.267)
    assert focal_of({FOCAL_LENGTH_35MM: 50}, 3600, 2400) == pytest.approx(5000, rel=1e-4)


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 25.4), (3, 10), (4, 1)])
def test_focal_length_by_the_sensors_resolution(unit, per_unit):
    exif = {FOCAL_LENGTH: 18.0, PLANE_RESOLUTION: 200 * per_unit, PLANE_UNIT: unit, EXIF_WIDTH: 4000, EXIF_HEIGHT: 3000}
    assert focal_of(exif, 4000, 3000) == pytest.approx(3600)
    assert focal_of(exif, 1500, 2000) == pytest.approx(1800)


@pytest.mark.parametrize("ifd", [{}, {FOCAL_LENGTH: 4.0}, {FOCAL_LENGTH_35MM: 0}, {FOCAL_LENGTH_35MM: "wide"},
                                 {FOCAL_LENGTH: 4.0, PLANE_RESOLUTION: 100.0, PLANE_UNIT: 9},
                                 {FOCAL_LENGTH_35MM: 1e9}, {FOCAL_LENGTH_35MM: 1e-9},
                                 {FOCAL_LENGTH_35MM: 28, EXIF_WIDTH: 4000, EXIF_HEIGHT: 2000}])  # fmt: skip
def test_what_exif_does_not_say_is_not_made_up(ifd):
    assert focal_of(ifd, 400, 300) is None


def test_focal_length_comes_with_the_file(folder):
    exif = exif_of({FOCAL_LENGTH_35MM: 26}, model="phone")
    for suffix in ("jpg", "png", "webp"):
        Image.fromarray(pixels(30, 40)).save(folder / f"a.{suffix}", exif=exif)
    assert [photograph.focal for photograph in prepared(folder)] == pytest.approx([26 * 50 / 43.267] * 3)


def test_cameras_are_told_apart_by_size_model_and_zoom(folder):
    for name, size, model, zoom in [("a", (30, 40), "x", 26), ("b", (30, 40), "x", 26), ("c", (40, 30), "x", 26),
                                    ("d", (30, 40), "y", 26), ("e", (30, 40), "x", 52)]:  # fmt: skip
        exif = exif_of({FOCAL_LENGTH_35MM: zoom}, model=model)
        Image.fromarray(pixels(*size)).save(folder / f"{name}.jpg", exif=exif)
    a, b, *others = (photograph.camera for photograph in prepared(folder))
    assert a == b
    assert len({a, *others}) == 4


@pytest.mark.parametrize("header", [b"no TIFF at all", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
def test_a_damaged_exif_says_nothing(folder, header):
    Image.fromarray(pixels(30, 40)).save(folder / "a.jpg", exif=b"Exif\0\0" + header)
    [photograph] = prepared(folder)
    assert photograph.focal is None and photograph.upright and (photograph.width, photograph.height) == (40, 30)


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(folder, orientation):
    stored = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
              6: np.rot90, 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    Image.fromarray(stored[orientation](pixels())).save(folder / "a.png", exif=exif_of(orientation=orientation))
    [photograph] = prepared(folder)
    assert (photograph.width, photograph.height, photograph.upright) == (10, 6, orientation == 1)
    assert np.abs(working(folder, 0).astype(int) - pixels()).max() < 30  # a JPEG
    written = folder.parent / "written.png"
    write_undistorted(photograph, written, None)
    image = Image.open(written)
    assert np.array_equal(np.asarray(image), pixels())
    assert image.getexif().get(ORIENTATION, 1) == 1


# Files.


def test_a_photograph_that_is_upright_and_undistorted_is_copied_byte_by_byte(folder):
    Image.fromarray(pixels()).save(folder / "a.jpg", exif=exif_of({FOCAL_LENGTH: 4.0}))
    write_undistorted(prepared(folder)[0], folder.parent / "b.jpg", None)
    assert (folder.parent / "b.jpg").read_bytes() == (folder / "a.jpg").read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_places_are_looked_up_and_the_format_stays(folder, suffix):
    smooth = np.linspace(0, 255, 32)[None, :, None].repeat(24, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(smooth).save(folder / f"a.{suffix}", icc_profile=b"profile")
    [photograph] = prepared(folder)
    rows, cols = np.mgrid[:20, :24].astype(np.float32)
    write_undistorted(photograph, folder.parent / photograph.name, np.stack([cols + 4.5, rows + 2], axis=-1))
    image = Image.open(folder.parent / photograph.name)
    expected = (np.arange(24) + 4.5) / 31 * 255
    assert image.format == {"jpg": "JPEG"}.get(suffix, suffix.upper())
    assert image.info["icc_profile"] == b"profile"
    assert np.abs(np.asarray(image.convert("RGB")).astype(float) - expected[None, :, None]).max() < 6


def test_alpha_palettes_grey_16_bits_and_cmyk_are_read(folder):
    image = Image.fromarray(pixels())
    image.convert("RGBA").save(folder / "a.png")
    image.convert("P").save(folder / "b.png")
    image.convert("L").save(folder / "c.png")
    Image.fromarray(np.full((6, 10), 65535, np.uint16)).save(folder / "d.png")
    image.convert("CMYK").save(folder / "e.jpg")
    assert [open_photograph(path)[0].mode for path in sorted(folder.iterdir())] == ["RGBA", "RGB", "L", "RGB", "RGB"]
    assert len(prepared(folder)) == 5
    assert working(folder, 3).min() == 255


def test_a_broken_photograph_is_left_out_and_said(folder, capsys):
    Image.fromarray(pixels()).save(folder / "a.jpg")
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "c.png").write_bytes(b"")
    Image.fromarray(pixels()).save(folder / "d.png")
    steps = []
    found = prepare(sorted(folder.iterdir()), folder.parent / "working", lambda: steps.append(1))
    assert [photograph.name for photograph in found] == ["a.jpg", "d.png"]
    assert len(steps) == 4
    assert sorted(path.name for path in (folder.parent / "working").iterdir()) == ["00000.jpg", "00001.jpg"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": cannot")[0] for line in said] == [f"WARNING: {folder / name}" for name in ("b.jpg", "c.png")]
    assert all(line.endswith("; left out") for line in said)


def test_what_is_no_photograph_is_left_out(folder, capsys):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "raw.dng", "x.webp"):
        (folder / name).write_bytes(b"")
    (folder / "more.jpg").mkdir()
    assert [path.name for path in find_photographs(folder)] == ["a.png", "b.JPG", "x.webp"]
    assert "left out raw.dng, expected JPEG" in capsys.readouterr().out


def test_no_photographs(folder):
    (folder / "notes.txt").write_text("")
    with pytest.raises(InputError, match="found no photographs, expected JPEG, PNG, WebP or HEIC"):
        find_photographs(folder)


def test_heic_names_the_command_that_installs_it(folder, monkeypatch):
    (folder / "IMG_1.HEIC").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"IMG_1\.HEIC: HEIC needs pillow-heif: pip install pillow-heif"):
        find_photographs(folder)


def test_heic(folder):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(pixels(64, 48))).save(folder / "a.heic", quality=95)
    (folder / "b.heic").write_bytes(b"nothing")
    assert len(find_photographs(folder)) == 2
    [photograph] = prepared(folder)
    assert photograph.name == "a.heic.jpg"
    write_undistorted(photograph, folder.parent / photograph.name, None)
    with Image.open(folder.parent / photograph.name) as image:
        assert (image.format, image.size) == ("JPEG", (48, 64))


def test_no_two_files_are_of_one_name(folder, monkeypatch):
    image = Image.fromarray(pixels())
    image.save(folder / "a.heic.jpg")
    image.save(folder / "a.heic", format="PNG")
    monkeypatch.setattr(photographs, "open_photograph", lambda path: (image, image.getexif()))
    assert [photograph.name for photograph in prepared(folder)] == ["a.heic.jpg", "_a.heic.jpg"]


def test_names():
    assert names(["a", "b"]) == "a, b"
    assert names(list("abcdef"), 2) == "a, b and 4 more"


def test_a_photograph_compares_by_value(tmp_path):
    values = (tmp_path, "a", 4, 3, (4, 3), None, True)
    assert Photograph(*values) == Photograph(*values)
