"""A person's photographs as they come: found, set upright, and what their EXIF says of the camera."""

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.Image import Transpose

from infonerf.scene.photographs import ENDINGS, decoded
from infonerf.system.errors import InputError
from infonerf.system.logs import say

HEIF = (".heic", ".heif")
OTHER_PICTURES = (".tif", ".tiff", ".bmp", ".gif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf")

ORIENTATION, EXIF_IFD, MAKE, MODEL = 0x0112, 0x8769, 0x010F, 0x0110
FOCAL_LENGTH, FOCAL_LENGTH_35MM = 0x920A, 0xA405
EXIF_WIDTH, EXIF_HEIGHT, PLANE_RESOLUTION, PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA210
MM_OF_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}  # inch, centimetre, millimetre
TURNS = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
         6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # by an orientation of EXIF
LENSES = 0.05, 100.0  # focal lengths in longer sides of the image: beyond, EXIF is wrong
DIAGONAL_35MM = 43.267  # mm, of the 36 x 24 frame that "35 mm equivalent" refers to


@dataclass(frozen=True)
class Photograph:
    """A photograph that can be read.

    path: the file. name: that of the file made of it. width, height: in pixels, upright. camera: what tells its camera
    and zoom from others. focal: in pixels, None where unknown. upright: whether the stored pixels are so, and may be
    copied as they are.
    """

    path: Path
    name: str
    width: int
    height: int
    camera: tuple
    focal: float | None
    upright: bool


def find_photographs(folder: Path) -> list[Path]:
    """The photographs in a folder, by name. Raises InputError where there are none, or HEIC that cannot be read."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if path.suffix.lower() in ENDINGS + HEIF]
    others = [path.name for path in files if path.suffix.lower() in OTHER_PICTURES]
    if others:
        say(f"WARNING: {folder}: left out {names(others)}, expected JPEG, PNG, WebP or HEIC")
    if not found:
        raise InputError(f"{folder}: found no photographs, expected JPEG, PNG, WebP or HEIC files")
    heif = [path for path in found if path.suffix.lower() in HEIF]
    if heif and not can_read_heif():
        raise InputError(f"{heif[0]}: HEIC needs pillow-heif: pip install pillow-heif")
    return found


def can_read_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def names(found: Sequence[str], most: int = 8) -> str:
    """a, b and 3 more."""
    more = len(found) - most
    return ", ".join(found) if more <= 0 else f"{', '.join(found[:most])} and {more} more"


def prepare(paths: Sequence[Path], working: Path, step: Callable[[], None]) -> list[Photograph]:
    """Read photographs, and write an upright copy of each to the folder `working` for COLMAP, as working_name says.
    One that cannot be read is left out, and said. `step` is called after each."""
    photographs: list[Photograph] = []
    for path in paths:
        try:
            image, tags = open_photograph(path)
        except InputError as error:
            say(f"WARNING: {error}; left out")
            continue
        finally:
            step()
        name = f"{path.name}.jpg" if path.suffix.lower() in HEIF else path.name
        while name in {other.name for other in photographs}:
            name = f"_{name}"
        width, height = image.size
        camera = (width, height, tags.get(MAKE), tags.get(MODEL), *focal_tags(tags))
        upright = path.suffix.lower() in ENDINGS and tags.get(ORIENTATION) not in TURNS
        copy = working / working_name(len(photographs))
        image.convert("RGB").save(copy, format="JPEG", quality=98, subsampling=0)
        photographs.append(Photograph(path, name, width, height, camera, focal_of(tags, width, height), upright))
    return photographs


def working_name(number: int) -> str:
    """What COLMAP calls a photograph: of the same order, and of letters that it surely reads."""
    return f"{number:05d}.jpg"


def open_photograph(path: Path) -> tuple[Image.Image, dict[int, object]]:
    """A photograph upright, of mode L, RGB or RGBA, and its EXIF as stored. Raises InputError where it is broken."""
    if path.suffix.lower() in HEIF:
        try:
            image = Image.open(path, formats=["HEIF"])  # turns it upright itself
            image.load()
        except Exception as error:  # its errors are its own
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise InputError(f"{path}: cannot be read as an image ({reason})") from error
    else:
        image = decoded(path)
    tags = exif_of(image)
    if image.mode not in ("L", "RGB", "RGBA"):
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.info.pop("icc_profile", None)  # of the other colour space
    turn = TURNS.get(tags.get(ORIENTATION))
    return image if turn is None else image.transpose(turn), tags


def exif_of(image: Image.Image) -> dict[int, object]:
    """What its EXIF says, by tags; nothing where that is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it leaves out
            exif = image.getexif()
            return {**exif.get_ifd(EXIF_IFD), **exif}
    except Exception:  # every damage has its own
        return {}


def focal_tags(tags: Mapping[int, object]) -> tuple[float, float]:
    """Focal length in mm, and as of 35 mm film; 0 where EXIF does not say."""
    return number(tags.get(FOCAL_LENGTH)), number(tags.get(FOCAL_LENGTH_35MM))


def number(value) -> float:
    """A number of EXIF; 0 for what is none."""
    try:
        value = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if np.isfinite(value) and value > 0 else 0.0


def focal_of(tags: Mapping[int, object], width: int, height: int) -> float | None:
    """Focal length in pixels of an image of that size; None where EXIF does not say, says what no lens has, or speaks
    of an image of another shape: this one was cropped."""
    millimetres, equivalent = focal_tags(tags)
    long, short = max(width, height), min(width, height)
    sides = sorted(number(tags.get(tag)) for tag in (EXIF_WIDTH, EXIF_HEIGHT))
    if sides[0] and abs(sides[1] / sides[0] - long / short) > 0.02 * long / short:
        return None
    per_mm = number(tags.get(PLANE_RESOLUTION)) / MM_OF_UNIT.get(tags.get(PLANE_UNIT, 2), np.inf)
    focal = None
    if equivalent:
        focal = equivalent * float(np.hypot(width, height)) / DIAGONAL_35MM
    elif millimetres and per_mm and sides[1]:
        focal = millimetres * per_mm * long / sides[1]
    return focal if focal and LENSES[0] * long < focal < LENSES[1] * long else None


def write_undistorted(photograph: Photograph, path: Path, places: np.ndarray | None) -> None:
    """Write a photograph to `path` in its own format; HEIC as JPEG.

    places: h w 2 float32, for each pixel written where its centre lies in the photograph, in OpenCV's coordinates ((0,
    0) is the centre of the first pixel); None: its own pixels, which are copied as they are stored where upright.
    """
    if places is None and photograph.upright:
        shutil.copyfile(photograph.path, path)
        return
    image, _ = open_photograph(photograph.path)
    profile = image.info.get("icc_profile")
    if places is not None:
        pixels = cv2.remap(np.asarray(image), places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        image = Image.fromarray(pixels)
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
    image = image.convert("RGB") if kind == "JPEG" and image.mode == "RGBA" else image
    options = {"PNG": {}, "WEBP": {"quality": 97}, "JPEG": {"quality": 97, "subsampling": 0}}[kind]
    image.save(path, format=kind, icc_profile=profile, **options)
