"""The Scene: what every loader returns and everything else takes, whatever the data set.

Axes: v views, h w pixels. Cameras are OpenGL: x right, y up, the camera looks along -z.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")  # what Pillow decodes itself; for some others it starts programs
MOST_PACKED = 8 * 1032  # pixels of a bit that a byte of a PNG can stand for: deflate packs no better than 1032 to 1
LONGEST_NAME = 200  # bytes; file systems hold 255, and results add to it
LARGEST = 1e12  # of a camera's numbers; rays are computed in float32, whose range ends with its square


@dataclass(frozen=True)
class Scene:
    """Posed photographs of one scene. Images are decoded only when `image` is called, which raises
    InputError where the file cannot be used; so are masks, and true depths, None for a view that has none.

    Views are numbered 0..v-1 over all splits; `train`, `val`, `test` and `unseen` hold such numbers.
    """

    name: str
    view_names: tuple[str, ...]  # v, unique, e.g. "train/r_0"; results are named after them
    poses: np.ndarray  # v 3 4, camera to world
    intrinsics: np.ndarray  # v 4: fx fy cx cy, in pixels
    height: int
    width: int
    near: float  # z-depth
    far: float
    white_background: bool
    train: tuple[int, ...]  # views whose pixels are trained on
    val: tuple[int, ...]
    test: tuple[int, ...]
    unseen: tuple[int, ...]  # the unseen pool: views whose poses, never pixels, regularise
    image: Callable[[int], np.ndarray]  # decodes a view: h w 3 float32 in 0..1, background applied
    bounds: np.ndarray | None = None  # 2 3: the corners of a box around what there is to see, where it is known
    alpha: Callable[[int], np.ndarray] | None = None  # decodes a view's alpha: h w float32 in 0..1; None: unknown
    mask: Callable[[int], np.ndarray] | None = None  # decodes a view's mask: h w bool, True on the object
    depth: Callable[[int], np.ndarray | None] | None = None  # decodes a view's z-depth: h w float32, 0 = no surface
    made_poses: np.ndarray | None = None  # n 3 4: poses of no view, made to be the unseen pool in place of `unseen`
    path: np.ndarray | None = None  # n 3 4, the poses of its video
    notes: tuple[str, ...] = ()  # what a user should be told about this scene

    def __post_init__(self):
        n = len(self.view_names)
        if self.poses.shape != (n, 3, 4) or self.intrinsics.shape != (n, 4):
            raise ValueError(
                f"{n} views, but poses {self.poses.shape} and intrinsics {self.intrinsics.shape}"
            )
        files = [name.replace("/", "_") for name in self.view_names]  # what results are called
        if len(set(files)) != n:
            twice = next(name for name, file in zip(self.view_names, files, strict=True) if files.count(file) > 1)
            raise InputError(f"scene {self.name}: view {twice} is listed twice, expected every view once (_ is as /)")
        for name, file in zip(self.view_names, files, strict=True):
            if len(file.encode(errors="replace")) > LONGEST_NAME:
                raise InputError(f"scene {self.name}: view {name}: expected a name of at most {LONGEST_NAME} bytes")
        for name, pose, fxfycxcy in zip(self.view_names, self.poses, self.intrinsics, strict=True):
            if fault := matrix_fault(pose):
                raise InputError(f"scene {self.name}: the pose of view {name} is {fault}, expected a camera's")
            if fault := intrinsics_fault(fxfycxcy):
                raise InputError(f"scene {self.name}: the intrinsics of view {name} are {fault}")
        if not 0 <= self.near < self.far:
            raise InputError(f"scene {self.name}: near {self.near}, far {self.far}: expected 0 <= near < far")


def bounds_of(scene: Scene) -> np.ndarray:
    """2 3: the scene's bounds; where it has none, the box around all that its training cameras see from near to far."""
    if scene.bounds is not None:
        return scene.bounds
    views = list(scene.train)
    fx, fy, cx, cy = scene.intrinsics[views].T
    corners = [
        np.stack([(col - cx) / fx * z, -(row - cy) / fy * z, -z + 0 * fx], axis=-1)
        for col in (0, scene.width) for row in (0, scene.height) for z in (scene.near, scene.far)
    ]  # 8 of v 3, in the cameras' own axes
    rotations, origins = scene.poses[views][:, :, :3], scene.poses[views][:, :, 3]
    points = np.concatenate([np.einsum("vij,vj->vi", rotations, corner) + origins for corner in corners])
    return np.stack([points.min(0), points.max(0)])


def choose_views(n_views: int, train_scene: list[int] | None, fewshot: int, fewshot_seed: int) -> tuple[int, ...]:
    """The few-shot choice: `train_scene` as given, else `fewshot` of the views drawn by
    `numpy.random.RandomState(fewshot_seed)`, else all of them (method specification, section 9).

    With seed 0 and 100 views, 4 shots are 26 86 2 55, the paper's.
    """
    if not train_scene:
        if not 0 <= fewshot <= n_views:
            raise InputError(f"--fewshot {fewshot}: there are {n_views} views to draw from, expected 0..{n_views}")
        if fewshot:
            drawn = np.random.RandomState(fewshot_seed).choice(n_views, fewshot, replace=False)
            return tuple(int(view) for view in drawn)
        return tuple(range(n_views))
    check_views(train_scene, n_views, "train_scene")
    if fewshot and fewshot != len(train_scene):
        raise InputError(
            f"--fewshot {fewshot} contradicts --train_scene, which names {len(train_scene)} views: "
            f"expected fewshot = {len(train_scene)}, or 0"
        )
    return tuple(train_scene)


def check_views(views: list[int], n_views: int, option: str) -> None:
    """Raise InputError unless all `views` are different and in 0..n_views-1."""
    for view in views:
        if not 0 <= view < n_views:
            raise InputError(f"--{option}: found view {view}, expected 0..{n_views - 1}")
        if views.count(view) > 1:
            raise InputError(f"--{option}: view {view} is named twice, expected every view once")


def unseen_pool(
    n_views: int, train: tuple[int, ...], test: tuple[int, ...], unseen_poses: str
) -> tuple[int, ...]:
    """The views whose poses may be regularised.

    `all` is the released pool: every pose of the data set. `no_test` leaves the test poses out,
    unless nothing but the training poses would be left.
    """
    everything = tuple(range(n_views))
    pool = tuple(view for view in everything if view not in set(test))
    return everything if unseen_poses == "all" or set(pool) <= set(train) else pool


def matrix_fault(matrix: np.ndarray) -> str | None:
    """What keeps a 4 x 4 (or 3 x 4) matrix from being a camera's, None where it may be one."""
    if matrix.shape not in ((4, 4), (3, 4)):
        return f"of shape {matrix.shape}"
    if not np.isfinite(matrix).all():
        return "not finite"
    if np.abs(matrix).max() > LARGEST:
        return f"of numbers up to {np.abs(matrix).max():.3g}"
    sizes = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return "singular" if sizes[-1] <= max(1e-7 * sizes[0], 1 / LARGEST) else None


def intrinsics_fault(fxfycxcy: np.ndarray) -> str | None:
    """What keeps fx fy cx cy from being a camera's, None where they may be."""
    focal = fxfycxcy[:2]
    if not (np.abs(fxfycxcy) < LARGEST).all() or not (focal > 1 / LARGEST).all():
        return f"{fxfycxcy.tolist()}, expected finite fx fy cx cy, the focal lengths above 0"
    return None


def require_folder(path: str | Path, option: str) -> Path:
    """The path of an existing folder, or an InputError that names the option."""
    if not path:
        raise InputError(f"--{option}: not given, expected the folder of the scene")
    if not os.path.isdir(path):
        raise InputError(f"--{option} {path}: found no such folder, expected the scene's files there")
    return Path(path)


def require_files(paths: Iterable[Path]) -> None:
    """Raise InputError for the first of `paths` that is not a file."""
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: the image is missing, expected every image that the scene's files name")


def check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:
        raise InputError(
            f"{path}: the image is {found[1]} x {found[0]}, expected {expected[1]} x {expected[0]} "
            "as the first training image"
        )


def decoded(path: Path, expected: tuple[int, int] | None = None) -> Image.Image:
    """An image file as it is stored. An orientation in its EXIF is not applied: as for COLMAP and nerfstudio, cameras
    belong to the stored pixels, however a viewer turns them.

    Raises InputError where it cannot be read, is animated, or is not of the `expected` height and width.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no file")  # a pipe would be waited for
        with path.open("rb") as file:
            image = Image.open(file, formats=FORMATS)
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a JPEG and its previews
            if expected in (None, image.size[::-1]):  # by its header: another one may be huge
                if image.format == "PNG" and image.width * image.height > MOST_PACKED * path.stat().st_size:
                    raise OSError(f"too few bytes for {image.width} x {image.height} pixels")
                image.load()
    except Exception as error:  # every format has its own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        reason = f"no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else reason
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error
    if frames > 1:
        raise InputError(f"{path}: found an animation of {frames} images, expected one image")
    if expected:
        check_size(path, image.size[::-1], expected)
    return image


def read_pixels(path: Path, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file to h w c float32 in 0..1, c = 3 (opaque) or 4 (with alpha: RGBA, grey with alpha, a
    palette or colour with transparency). Grey, palettes and CMYK become RGB; 16-bit colour is read as 8-bit.

    Raises InputError where it cannot be read, or is not of the `expected` height and width.
    """
    image = decoded(path, expected)
    if not image.mode.startswith("I"):
        array = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return array.astype(np.float32) / np.float32(255)
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


def on_background(pixels: np.ndarray, white: bool) -> np.ndarray:
    """h w 3|4 -> h w 3: over white, or, as released, the alpha simply dropped. RGB is opaque."""
    if white and pixels.shape[-1] == 4:
        rgb, alpha = pixels[..., :3], pixels[..., 3:]
        return rgb * alpha + (1 - alpha)
    return pixels[..., :3]


def alpha_of(path: Path, pixels: np.ndarray) -> np.ndarray:
    """h w 4 -> h w; InputError where the image at `path` has none, although that of the first training view has."""
    if pixels.shape[-1] != 4:
        raise InputError(f"{path}: found an image without alpha, expected RGBA as the first training image")
    return pixels[..., 3]


def opaque_note(path: Path, pixels: np.ndarray, white: bool) -> tuple[str, ...]:
    """What to say where a white background is asked for and the images have no alpha."""
    return (f"{path}: RGB without alpha; such images are taken as opaque",) * (white and pixels.shape[-1] == 3)


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
