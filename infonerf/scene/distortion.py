"""Camera models of COLMAP and OpenCV, and how their photographs become those of a pinhole camera.

Places in an image are cols and rows in pixels, (0, 0) being the outer corner of its first pixel, as for COLMAP. Places
on the plane z = 1 of the camera's axes (x right, y down, z forward) are x and y.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from infonerf.scene.checks import LARGEST, intrinsics_fault

MODELS = {  # COLMAP's parameters, by their names here
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
}
COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")  # OpenCV's order
WIDEST = np.tan(np.radians(60))  # of a pinhole image, from its middle: beyond, a fisheye's pixels are spread too thin
NEWTON_STEPS = 50


@dataclass(frozen=True)
class Lens:
    """A camera's size and model. fisheye: OpenCV's, of the angle, else its rational polynomial with tangential terms.
    coefficients: k1 k2 p1 p2 k3 k4 k5 k6; a fisheye has k1 to k4 of them."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    fisheye: bool = False
    coefficients: tuple[float, ...] = (0.0,) * 8

    @classmethod
    def of_model(cls, model: str, width: int, height: int, values: Sequence[float]) -> "Lens":
        """From COLMAP's name of a model and its parameters."""
        named = dict(zip(MODELS[model], map(float, values), strict=True))
        focal = named.get("fx", named.get("f"))
        coefficients = tuple(named.get(name, 0.0) for name in COEFFICIENTS)
        return cls(width, height, focal, named.get("fy", focal), named["cx"], named["cy"], model.endswith("FISHEYE"),
                   coefficients)

    @property
    def intrinsics(self) -> np.ndarray:
        """fx fy cx cy."""
        return np.array([self.fx, self.fy, self.cx, self.cy])

    @property
    def is_pinhole(self) -> bool:
        return not self.fisheye and not any(self.coefficients)

    def fault(self) -> str | None:
        """What keeps it from being a camera's, None where it may be."""
        if not 1 <= min(self.width, self.height) <= max(self.width, self.height) <= 1e6:
            return f"of size {self.width} x {self.height}"
        if fault := intrinsics_fault(self.intrinsics):
            return f"of intrinsics {fault}"
        if not (np.abs(self.coefficients) < LARGEST).all():
            return f"of coefficients {list(self.coefficients)}"
        return None

    def resized(self, width: int, height: int) -> "Lens":
        """The lens of the image at another size."""
        x, y = width / self.width, height / self.height
        return Lens(width, height, self.fx * x, self.fy * y, self.cx * x, self.cy * y, self.fisheye, self.coefficients)

    def project(self, points: np.ndarray) -> np.ndarray:
        """n 2: x y -> cols and rows."""
        bend = bent_fisheye if self.fisheye else bent
        return bend(points, self.coefficients) * [self.fx, self.fy] + [self.cx, self.cy]

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """n 2: cols and rows -> x y, by Newton's method; NaN where no x y is found to project there."""
        if self.is_pinhole:
            return (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        with np.errstate(all="ignore"):
            return unbent(pixels, self)


def bent(points: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """n 2: where OpenCV's rational polynomial and tangential terms move places on the plane z = 1."""
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    x, y = points.T
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack([x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                     y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=1)  # fmt: skip


def bent_fisheye(points: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """n 2: the same for OpenCV's fisheye, whose radius is a polynomial of the angle from the axis."""
    k1, k2, _, _, k3, k4, _, _ = coefficients
    radius = np.hypot(*points.T)
    angle = np.arctan(radius)
    square = angle**2
    moved = angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
    with np.errstate(invalid="ignore", divide="ignore"):
        return points * np.where(radius > 1e-12, moved / radius, 1.0)[:, None]


def unbent(pixels: np.ndarray, lens: Lens) -> np.ndarray:
    scale = np.array([lens.fx, lens.fy])
    wanted = (pixels - [lens.cx, lens.cy]) / scale
    radius = np.hypot(*wanted.T)[:, None]
    limit = np.tan(np.minimum(radius, np.radians(85))) if lens.fisheye else radius
    points = wanted * np.where(radius > 1e-12, limit / np.maximum(radius, 1e-12), 1.0)
    for _ in range(NEWTON_STEPS):
        missing = wanted - (lens.project(points) - [lens.cx, lens.cy]) / scale
        (a, b), (c, d) = slopes(lens, points).transpose(1, 2, 0)
        step = np.stack([d * missing[:, 0] - b * missing[:, 1], a * missing[:, 1] - c * missing[:, 0]], axis=1)
        step = np.clip(step / (a * d - b * c)[:, None], -1, 1)
        points = points + step
        if not (np.abs(step) > 1e-14).any():
            break
    off = np.abs(lens.project(points) - pixels).max(-1)
    good = (off < 1e-6) & keeps_order(slopes(lens, points))
    return np.where(good[:, None], points, np.nan)


def slopes(lens: Lens, points: np.ndarray) -> np.ndarray:
    """n 2 2: the derivative of a bent place by its x y, by central differences."""
    scale, columns = [lens.fx, lens.fy], []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = 1e-6
        columns.append((lens.project(points + step) - lens.project(points - step)) / scale / 2e-6)
    return np.stack(columns, axis=-1)


def keeps_order(jacobians: np.ndarray) -> np.ndarray:
    """n: whether places stay beside each other there, neither folded back nor mirrored through the middle."""
    return (np.linalg.det(jacobians) > 0) & (np.trace(jacobians, axis1=1, axis2=2) > 0)


def border(width: float, height: float, inset: float, n: int = 200) -> dict[str, np.ndarray]:
    """n 2 places on each side of an image, `inset` pixels from its edge."""
    cols, rows = np.linspace(inset, width - inset, n), np.linspace(inset, height - inset, n)
    return {
        "left": np.stack([np.full(n, inset), rows], axis=1), "right": np.stack([np.full(n, width - inset), rows], 1),
        "top": np.stack([cols, np.full(n, inset)], axis=1), "bottom": np.stack([cols, np.full(n, height - inset)], 1),
    }  # fmt: skip


@lru_cache(maxsize=256)
def pinhole_of(lens: Lens) -> Lens | None:
    """The pinhole camera of a lens' undistorted image: the same focal lengths, and the largest rectangle that each
    border of the image leaves whole, so that all its pixels are photographed. None where that is less than a quarter
    of the width or height, as the coefficients fold the image over itself.

    A fisheye's is cut at 60 degrees from the axis to each side; corners for which a polynomial has no place are cut.
    """
    if lens.is_pinhole:
        return lens
    sides = border(lens.width, lens.height, min(0.5, lens.width / 4, lens.height / 4))
    places = {side: lens.unproject(pixels) for side, pixels in sides.items()}
    if not all(np.isfinite(place).any() for place in places.values()) and not lens.fisheye:
        return None
    limit = WIDEST if lens.fisheye else np.inf
    low = np.array([np.nanmax([*places["left"][:, 0], -limit]), np.nanmax([*places["top"][:, 1], -limit])])
    high = np.array([np.nanmin([*places["right"][:, 0], limit]), np.nanmin([*places["bottom"][:, 1], limit])])
    focal = np.array([lens.fx, lens.fy])
    for part in np.arange(1, 0.5, -0.01):
        size = np.floor(part * (high - low) * focal + 1e-9)
        if not (size >= np.array([lens.width, lens.height]) / 4).all() or size.max() > 8 * max(lens.width, lens.height):
            return None
        cx, cy = -part * low * focal
        pinhole = Lens(int(size[0]), int(size[1]), lens.fx, lens.fy, float(cx), float(cy))
        if shows_all(lens, pinhole):
            return pinhole
    return None


def shows_all(lens: Lens, pinhole: Lens) -> bool:
    """Whether every pixel of the undistorted image is one of the photograph, in which nothing is seen twice."""
    cols, rows = np.linspace(0, pinhole.width, 65), np.linspace(0, pinhole.height, 65)
    places = pinhole.unproject(np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2))
    with np.errstate(all="ignore"):
        found, in_order = lens.project(places), keeps_order(slopes(lens, places))
    inside = (found > -0.01) & (found < np.array([lens.width, lens.height]) + 0.01)
    return bool(inside.all() and in_order.all())


@lru_cache(maxsize=4)
def pixel_maps(lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """h w each, float32: where in the photograph each pixel of the undistorted image is, in OpenCV's places, which are
    0 at the centre of the first pixel."""
    pinhole = pinhole_of(lens)
    cols, rows = np.meshgrid(np.arange(pinhole.width) + 0.5, np.arange(pinhole.height) + 0.5)
    found = lens.project(pinhole.unproject(np.stack([cols, rows], axis=-1).reshape(-1, 2))) - 0.5
    cols, rows = found.T.reshape(2, pinhole.height, pinhole.width).astype(np.float32)
    return cols, rows


def undistorted(lens: Lens, pixels: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """h w c of the lens' size -> the image of its pinhole camera."""
    if lens.is_pinhole:
        return pixels
    return cv2.remap(pixels, *pixel_maps(lens), interpolation, borderMode=cv2.BORDER_REPLICATE)
