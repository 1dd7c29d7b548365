"""Image files -> arrays: photographs, their alpha, true depths. Axes: h w pixels; v views."""

import filecmp
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from infonerf.scene.checks import have_pose_of
from infonerf.system.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")  # what Pillow decodes itself; for some others it starts programs
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")  # of their files, in lower case
MOST_PACKED = 8 * 1032  # pixels that a byte may stand for: of a bit each in a PNG, where deflate packs 1032 to 1
FEW_PIXELS = 2**24  # that need no such bytes, as a WebP of one colour has none


class ImageFiles:
    """The image files of a scene, one path a view, read when asked for; all are of the size of the one at `first`, or
    an InputError is raised: for those numbered `views` at once, by their headers. Of `others`, to be measured, what
    cannot be read or is of another size is a note.

    `full_size`: height and width of the files. `half`: give them at half the size. `white`, `drop_alpha`: what becomes
    of transparent pixels (`composited`).
    """

    def __init__(
        self, paths: Sequence[Path], first: int, *, views: Sequence[int] = (), others: Sequence[int] = (), half: bool,
        white: bool, drop_alpha: bool = False,
    ):  # fmt: skip
        self.paths, self.half, self.white, self.drop_alpha = paths, half, white, drop_alpha
        pixels = read_pixels(paths[first])
        self.full_size = pixels.shape[:2]
        self.has_alpha = pixels.shape[-1] == 4
        opaque = f"{paths[first]}: RGB without alpha; such images are taken as opaque"
        self.notes = (opaque,) if white and not self.has_alpha else ()
        for view in views:
            check_size(paths[view], image_size(paths[view]), self.full_size)
        self.notes += unusable_note([paths[view] for view in others], self.full_size)
        self.pixels = lru_cache(maxsize=1)(self.read)  # a view's colour and alpha are asked for one after the other

    def read(self, view: int) -> np.ndarray:
        pixels = read_pixels(self.paths[view], self.full_size)
        return half_size(pixels) if self.half else pixels

    def image(self, view: int) -> np.ndarray:
        """Colour, h w 3 float32 in 0..1."""
        return composited(self.pixels(view), self.white, self.drop_alpha)

    def alpha(self, view: int) -> np.ndarray:
        """Opacity, h w float32 in 0..1."""
        pixels = self.pixels(view)
        if pixels.shape[-1] != 4:
            raise InputError(
                f"{self.paths[view]}: found an image without alpha, expected RGBA as the first training image"
            )
        return pixels[..., 3]


def composited(pixels: np.ndarray, white: bool, drop_alpha: bool = False) -> np.ndarray:
    """h w 3|4 -> h w 3: over white, else over black, or, as released, with the alpha simply dropped. RGB is opaque."""
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    if not alpha.size or (drop_alpha and not white):
        return rgb
    return rgb * alpha + (1 - alpha) if white else rgb * alpha


def unusable_note(paths: Sequence[Path], size: tuple[int, int]) -> tuple[str, ...]:
    """A note on those of the files whose headers cannot be read, or are of another height and width."""
    faults = []
    for path in paths:
        try:
            check_size(path, image_size(path), size)
        except InputError as error:
            faults.append(str(error))
    more = f" (and {len(faults) - 1} others)" if len(faults) > 1 else ""
    return (f"WARNING: {faults[0]}{more}; such views are not measured",) if faults else ()


def copies_note(paths: Sequence[Path], poses: np.ndarray, train: Sequence[int], test: Sequence[int]) -> tuple[str, ...]:
    """A note on test views whose files are copies of ones that are trained on, at other poses. (camera_checks looks at
    poses.) `paths`, `poses` (v 3 4): of all views."""
    trained: dict[int, list[Path]] = {}
    for view in train:
        trained.setdefault(os.path.getsize(paths[view]), []).append(paths[view])
    same_pose = have_pose_of(poses[list(test)], poses[list(train)])
    others = [paths[view] for view, same in zip(test, same_pose, strict=True) if not same]
    copies = [path for path in others if os.path.isfile(path)
              and any(same_bytes(path, other) for other in trained.get(os.path.getsize(path), ()))]
    return (f"WARNING: {copies[0]} is a copy of a photograph that is trained on, for {len(copies)} of {len(test)} test "
            "views: what is measured there says nothing of unseen views",) if copies else ()  # fmt: skip


def same_bytes(path: Path, other: Path) -> bool:
    """Of files of one size; False for one that cannot be read, of which more is said elsewhere."""
    try:
        return os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False


def check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:
        raise InputError(
            f"{path}: the image is {found[1]} x {found[0]}, expected {expected[1]} x {expected[0]} "
            "as the first training image"
        )


class Within(io.BufferedReader):
    """A file that is asked for no more than it has: room would be made for all that a header promises."""

    def read(self, size: int | None = -1) -> bytes:
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file, its header alone read yet. Raises InputError where it, or what is done with it, fails."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("no file")  # a pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it does without, or reads all the same
            with Within(io.FileIO(path)) as file, Image.open(file, formats=FORMATS) as image:
                yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:  # every format has its own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        reason = f"no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else reason
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error


def decoded(path: Path, expected: tuple[int, int] | None = None) -> Image.Image:
    """An image file as it is stored. An orientation in its EXIF is not applied: as for COLMAP and nerfstudio, cameras
    belong to the stored pixels, however a viewer turns them.

    Raises InputError where it cannot be read, is animated, or is not of the `expected` height and width.
    """
    with opened(path) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a JPEG and its previews
        if expected:
            check_size(path, image.size[::-1], expected)  # by its header: another one may be huge
        if frames > 1:
            raise InputError(f"{path}: found an animation of {frames} images, expected one image")
        if image.width * image.height > max(MOST_PACKED * path.stat().st_size, FEW_PIXELS):
            raise OSError(f"too few bytes for {image.width} x {image.height} pixels")
        image.load()
        return image.copy()


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, by its header. Raises InputError where there is none."""
    with opened(path) as image:
        return image.size[::-1]


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder, by name; hidden ones are none."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")


def read_pixels(path: Path, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file to h w c float32 in 0..1, c = 3 (opaque) or 4 (with alpha: RGBA, grey with alpha, a
    palette or colour with transparency). Grey, palettes and CMYK become RGB; 16-bit colour is read as 8-bit.

    Raises InputError where it cannot be read, or is not of the `expected` height and width.
    """
    image = decoded(path, expected)
    if not image.mode.startswith("I"):
        array = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")).astype(np.float32)
        array /= np.float32(255)
        return array
    if image.has_transparency_data:
        raise InputError(f"{path}: found 16-bit grey of which one value is transparent, expected alpha or none")
    grey = np.asarray(image).astype(np.float32) / np.float32(65535)
    return np.repeat(grey[..., None], 3, axis=-1)


def read_depth(path: Path, expected: tuple[int, int], scale: float) -> np.ndarray:
    """Decode a depth image to z-depths, h w float32: its 16-bit values times `scale`; 0 is no surface.

    Raises InputError where it cannot be read, or is not of the `expected` height and width.
    """
    image = decoded(path, expected)
    if not image.mode.startswith("I"):
        raise InputError(f"{path}: found an image of mode {image.mode}, expected 16-bit grey")
    return (np.asarray(image) * float(scale)).astype(np.float32)


def nearest(depth: np.ndarray, height: int, width: int, pixel_center: float) -> np.ndarray:
    """h w -> height width: for each pixel of the smaller image that pixel of the larger whose ray is nearest to
    its own, `pixel_center` being where in their pixels rays go. A mean over an edge would lie on no surface."""
    rows, cols = (
        np.floor((np.arange(small) + pixel_center) * large / small - pixel_center + 0.5).astype(int)
        for small, large in zip((height, width), depth.shape, strict=True)
    )
    return depth[np.ix_(rows, cols)]


def half_size(array: np.ndarray) -> np.ndarray:
    """Halve the height and width by averaging areas."""
    h, w = array.shape[:2]
    return cv2.resize(array, (w // 2, h // 2), interpolation=cv2.INTER_AREA)


def half_intrinsics(intrinsics: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Intrinsics (v 4), height and width of images halved by `half_size`."""
    if min(height, width) < 2:
        raise InputError(f"--half_res: the images are {width} x {height}, expected at least 2 x 2")
    h, w = height // 2, width // 2
    scale = np.array([w / width, h / height, w / width, h / height])
    return intrinsics * scale, h, w
