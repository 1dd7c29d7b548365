"""A picture of cameras and points by which a person sees whether they make sense."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from infonerf.capture.dataset import Model

PANEL, MARGIN, EDGE, HEADER, LINE = 900, 50, 8, 80, 26  # pixels
BACKGROUND, FRAME, TEXT = (30, 27, 25), (80, 80, 80), (230, 230, 230)  # BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX
SUBPIXEL = 4  # bits of a coordinate's fraction, for OpenCV


def draw(model: Model, title: str) -> np.ndarray:
    """The cameras from above and from the side, with the points: h w 3, uint8, BGR."""
    axes = world_axes(model.poses)
    centre = np.median(model.points, axis=0) if len(model.points) else model.poses[:, :, 3].mean(axis=0)
    corners, points = ((places - centre) @ axes.T for places in (frusta(model), model.points))
    panels = [panel(corners[..., plane], points[:, plane], model.colours, name)
              for plane, name in (([0, 2], "from above"), ([2, 1], "from the side"))]  # fmt: skip
    pictures = np.concatenate(panels, axis=1)
    width = pictures.shape[1]
    header = np.full((HEADER, width, 3), BACKGROUND, np.uint8)
    write(header, title, (MARGIN, 50), 0.9)
    return np.concatenate([header, pictures, legend(model.names, width)])


def world_axes(poses: np.ndarray) -> np.ndarray:
    """3 3, rows: right, up and forward of the cameras (v 3 4) taken together."""
    up = unit(-poses[:, :, 1].mean(axis=0), np.array([0.0, -1, 0]))
    forward = poses[:, :, 2].mean(axis=0)
    forward = unit(forward - (forward @ up) * up, np.cross(up, poses[0, :, 0]))
    forward = unit(forward - (forward @ up) * up, np.roll(up, 1))
    return np.stack([np.cross(forward, up), up, forward])


def unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Of length one; `otherwise` where it is too short to have a direction."""
    length = np.linalg.norm(vector)
    return vector / length if length > 0.05 else otherwise


def frusta(model: Model) -> np.ndarray:
    """v 5 3, in the world: centre and image corners of each camera, at a depth that looks well beside the scene."""
    centres = model.poses[:, :, 3]
    extent = np.linalg.norm(centres - centres.mean(axis=0), axis=1).max()
    depth = np.median([np.linalg.norm(model.points - centre, axis=1).min() if len(model.points) else extent
                       for centre in centres])  # fmt: skip
    length = max(min(0.25 * depth, 0.8 * extent), 0.06 * depth, 1e-6)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])[None] * model.sizes[:, None, ::-1]
    places = (corners - model.intrinsics[:, None, 2:]) / model.intrinsics[:, None, :2]
    rays = np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=2) * length
    far = np.einsum("vij,vkj->vki", model.poses[:, :, :3], rays) + centres[:, None]
    return np.concatenate([centres[:, None], far], axis=1)


def panel(corners: np.ndarray, points: np.ndarray, colours: np.ndarray, name: str) -> np.ndarray:
    """A square drawing of cameras (v 5 2) and points (n 2), x to the right and y up, that shows all the cameras and
    most of the points."""
    image = np.full((PANEL, PANEL, 3), BACKGROUND, np.uint8)
    shown = corners.reshape(-1, 2)
    if len(points):
        shown = np.concatenate([shown, np.quantile(points, [0.03, 0.97], axis=0)])
    low, high = shown.min(axis=0), shown.max(axis=0)
    scale = (PANEL - 2 * MARGIN) / max((high - low).max(), 1e-9)

    def pixel(places: np.ndarray) -> np.ndarray:
        return (places - (low + high) / 2) * scale * [1, -1] + PANEL / 2

    placed, radius = pixel(points), 3 if len(points) < 1000 else 2
    inside = np.all((placed > EDGE) & (placed < PANEL - EDGE), axis=1)
    for (x, y), (r, g, b) in zip(placed[inside], brightened(colours[inside]), strict=True):
        cv2.circle(image, fixed((x, y)), radius << SUBPIXEL, (int(b), int(g), int(r)), -1, cv2.LINE_AA, SUBPIXEL)
    for view, (tip, *far) in enumerate(pixel(corners)):
        colour = colour_of(view, len(corners))
        for place, neighbour in zip(far, far[1:] + far[:1], strict=True):
            cv2.line(image, fixed(tip), fixed(place), colour, 1, cv2.LINE_AA, SUBPIXEL)
            cv2.line(image, fixed(place), fixed(neighbour), colour, 2, cv2.LINE_AA, SUBPIXEL)
        cv2.circle(image, fixed(tip), 4 << SUBPIXEL, colour, -1, cv2.LINE_AA, SUBPIXEL)
    label(image, pixel(corners))
    cv2.rectangle(image, (EDGE, EDGE), (PANEL - EDGE, PANEL - EDGE), FRAME, 1)
    write(image, name, (24, 40), 0.8)
    return image


def label(image: np.ndarray, corners: np.ndarray) -> None:
    """Number the cameras (v 5 2, in pixels) behind their backs, leaving out numbers that would cover others."""
    taken: list[np.ndarray] = []
    for view, (tip, *far) in enumerate(corners):
        back = tip - np.mean(far, axis=0)
        place = tip + 22 * back / max(np.linalg.norm(back), 1e-9)
        if all(np.abs(place - other).max() > 18 for other in taken):
            taken.append(place)
            text = str(view + 1)
            (width, height), _ = cv2.getTextSize(text, FONT, 0.6, 1)
            write(image, text, place + np.array([-width, height]) / 2, 0.6, colour_of(view, len(corners)))


def legend(names: Sequence[str], width: int) -> np.ndarray:
    """Numbers and names in columns."""
    texts = [f"{number}  {ascii(name)[1:-1]}" for number, name in enumerate(names, 1)]
    column = max(cv2.getTextSize(text, FONT, 0.6, 1)[0][0] for text in texts) + 40
    columns = max(1, (width - 2 * MARGIN) // column)
    rows = -(-len(texts) // columns)
    image = np.full((rows * LINE + 30, width, 3), BACKGROUND, np.uint8)
    for view, text in enumerate(texts):
        place = (MARGIN + view // rows * column, LINE + view % rows * LINE)
        write(image, text, place, 0.6, colour_of(view, len(texts)))
    return image


def colour_of(view: int, n: int) -> tuple[int, int, int]:
    """BGR, along the order of the views."""
    red, green, blue = colorsys.hsv_to_rgb(0.85 * view / max(n - 1, 1), 0.6, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def brightened(colours: np.ndarray) -> np.ndarray:
    """Colours that show on the background, dark ones too."""
    return np.clip(60 + 0.85 * colours.astype(float), 0, 255)


def fixed(place) -> tuple[int, int]:
    """A place in pixels as OpenCV's fixed-point coordinates."""
    return tuple(round(float(value) * 2**SUBPIXEL) for value in place)


def write(image: np.ndarray, text: str, place, size: float, colour=TEXT) -> None:
    cv2.putText(image, text, tuple(int(value) for value in place), FONT, size, colour, 1, cv2.LINE_AA)
