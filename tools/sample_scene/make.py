"""Make the sample scene: a toy steam locomotive, in the layout of NeRF synthetic, with true depth.

    python -m tools.sample_scene.make --output data/sample

A scene of our own lets everybody train, test and measure without a download. The object has what makes few
views hard: thin rods and rails, holes (spokes, windows, the cowcatcher), many colours, textures, and metal
whose look depends on where it is seen from.

World: x forward, y left, z up. Points and vectors are arrays 3 n (or unpacked into x, y, z), float32. Cameras
are OpenGL: x right, y up, looking along -z. A pixel is the square around its centre, (col + 0.5, row + 0.5).

The object is in locomotive.py: `PARTS` lists its shapes, which are signed distances, with their
materials. Here a `Field` finds the nearest part fast; rays march through it in steps of that distance (sphere
tracing). Shapes are written in the model's own units; the world is SCALE times that, and LIFT higher, and
`camera_rays` is where the two meet.
"""

import json
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from infonerf.system.arguments import POSITIVE, ScriptParser
from infonerf.system.errors import exit_status
from infonerf.system.files import atomic_file
from tools.sample_scene.locomotive import PARTS, rgb

CAMERA_ANGLE_X, RADIUS = 0.6911112070083618, 4.0311  # NeRF synthetic's
VIEWS = {"train": 100, "val": 13, "test": 25}
SEEDS = {"train": 176, "val": 1}  # 176: views 26 86 2 55, the choice of `--fewshot 4`, lie on four sides
SAMPLES = 4  # rays across a pixel: 4 x 4 for its colour and coverage
DEPTH_SCALE = 8 / 65535  # z-depth of one step of a depth image
SCALE, LIFT = 0.91, 0.1  # world = SCALE * model, then LIFT up: no view cuts the object off
LOWER, UPPER = np.array([[-1.3, -0.72, -0.9], [1.3, 0.72, 0.98]])  # the model, with a margin


# ---------------------------------------------------------------- from a point to the nearest part


class Field:
    """The distance to the nearest part.

    A grid over the object knows at its nodes the distance, and which parts can be the nearest one within half
    a cell around: those whose distance is less than twice that half diagonal above the smallest. So a point
    looks at two or three parts, and one far from everything at none.
    """

    def __init__(self, spacing: float = 0.035):
        counts = np.ceil((UPPER - LOWER) / spacing).astype(int) + 1
        self.spacing, self.counts = np.float32(spacing), counts
        self.reach = np.float32(0.5 * np.sqrt(3) * spacing)  # no point of the grid is farther from a node
        axes = [lower + spacing * np.arange(n) for lower, n in zip(LOWER, counts, strict=True)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).astype(np.float32)
        distances = np.stack([shape(*nodes) for shape, _ in PARTS])
        self.nearest = distances.min(0)
        near = distances <= self.nearest + 2.01 * self.reach
        self.candidates = (near.astype(np.uint64) << np.arange(len(PARTS), dtype=np.uint64)[:, None]).sum(0)

    def __call__(self, points: np.ndarray, parts: bool = False):
        """Distances (n), not greater than the true ones and exact near a surface; with `parts`, the number
        of the nearest part too."""
        cell = (points - LOWER[:, None].astype(np.float32)) / self.spacing
        i, j, k = (np.clip(np.rint(c).astype(np.int32), 0, n - 1) for c, n in zip(cell, self.counts, strict=True))
        node = (i * self.counts[1] + j) * self.counts[2] + k
        distance, part = self.nearest[node] - self.reach, np.zeros(points.shape[1], np.int64)
        close = np.flatnonzero(distance < self.reach) if not parts else np.arange(len(part))
        candidates, exact = self.candidates[node[close]], np.full(len(close), np.inf, np.float32)
        points = points[:, close]
        for number, (shape, _) in enumerate(PARTS):
            mine = np.flatnonzero(candidates & np.uint64(1 << number))
            if len(mine):
                value = shape(*points[:, mine])
                part[close[mine]] = np.where(value < exact[mine], number, part[close[mine]])
                exact[mine] = np.minimum(exact[mine], value)
        distance[close] = exact
        return (distance, part) if parts else distance

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Unit normals, 3 n: the gradient, from the corners of a small tetrahedron."""
        corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
        normal = sum(corner[:, None] * self(points + 0.002 * corner[:, None]) for corner in corners)
        return normal / (np.linalg.norm(normal, axis=0) + 1e-9)


# ---------------------------------------------------------------- rays and light

SUN = np.array([[0.42], [-0.5], [0.76]], np.float32) / np.linalg.norm([0.42, -0.5, 0.76]).astype(np.float32)
SUN_COLOUR, SKY, GROUND = rgb(2.4, 2.2, 1.87), rgb(0.72, 0.83, 1.02), rgb(0.38, 0.33, 0.26)


def span(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave the box around the object; they miss it where enter >= leave."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = ((bound[:, None].astype(np.float32) - origins) / directions for bound in (LOWER, UPPER))
    return np.maximum(np.minimum(a, b).max(0), 0), np.maximum(a, b).min(0)


def march(field: Field, origins: np.ndarray, directions: np.ndarray, steps: int = 400) -> np.ndarray:
    """Distances (n) along unit directions to the first surface, infinite where there is none."""
    t, leave = span(origins, directions)
    found = np.full_like(t, np.inf)
    active = np.flatnonzero(t < leave)
    for _ in range(steps):
        distance = field(origins[:, active] + t[active] * directions[:, active])
        t[active] += distance
        hit = distance < 4e-4
        found[active[hit]] = t[active[hit]]
        active = active[~hit & (t[active] < leave[active])]
        if not len(active):
            break
    return found


def sunlight(field: Field, points: np.ndarray, steps: int = 40) -> np.ndarray:
    """How much of the sun is seen (n, 0..1), with soft edges: the narrowest passage towards it."""
    directions = np.broadcast_to(SUN, points.shape)
    _, leave = span(points, directions)
    t, light = np.full(points.shape[1], 0.01, np.float32), np.ones(points.shape[1], np.float32)
    active = np.arange(len(t))
    for _ in range(steps):
        distance = field(points[:, active] + t[active] * SUN)
        light[active] = np.minimum(light[active], 14 * distance / t[active])
        t[active] += np.maximum(distance, 0.008)
        active = active[(light[active] > 0.01) & (t[active] < leave[active])]
        if not len(active):
            break
    light = np.clip(light, 0, 1)
    return light * light * (3 - 2 * light)


def openness(field: Field, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Ambient occlusion (n, 1 = open): how far the distance grows along the normal."""
    closed = 0.0
    for height, weight in ((0.02, 4.0), (0.06, 2.2), (0.13, 1.2), (0.22, 0.6)):
        closed = closed + weight * np.clip(height - field(points + height * normals), 0, height)
    return np.clip(1 - 1.6 * closed, 0.08, 1)


def sky_colour(directions: np.ndarray) -> np.ndarray:
    """What a mirror sees: earth below, a bright horizon, blue above."""
    up = np.clip(4 * directions[2] + 0.5, 0, 1)
    above = rgb(1.0, 0.98, 0.92) + (rgb(0.28, 0.5, 0.95) - 1) * np.sqrt(np.clip(directions[2], 0, 1))
    return GROUND * (1 - up) + np.clip(above, 0, None) * up


def shade(field: Field, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Linear RGB (3 n) of surface points seen along unit directions."""
    _, part = field(points, parts=True)
    normals = field.normals(points)
    colour, gloss, metal = np.zeros_like(points), np.zeros_like(points[0]), np.zeros_like(points[0])
    for number in np.unique(part):
        mine, material = part == number, PARTS[number][1]
        colour[:, mine] = material.colour(*points[:, mine]) if callable(material.colour) else material.colour
        gloss[mine], metal[mine] = material.gloss, material.metal
    above = points + 0.004 * normals
    lit, ambient = sunlight(field, above), openness(field, points, normals)
    facing = np.clip((normals * SUN).sum(0), 0, None) * lit
    sky = GROUND + (SKY - GROUND) * (0.5 + 0.5 * normals[2])
    diffuse = colour * (SUN_COLOUR * facing + sky * ambient) * (1 - 0.65 * metal)
    cosine = -(normals * directions).sum(0)
    mirrored = directions + 2 * cosine * normals
    fresnel = metal + (1 - metal) * (0.04 + 0.5 * np.clip(1 - cosine, 0, 1) ** 5)
    tint = 1 + (colour - 1) * metal
    highlight = np.clip((mirrored * SUN).sum(0), 0, None)
    highlight = (1.6 * highlight**40 + 0.5 * highlight**8 * metal) * lit * (0.35 + 0.65 * metal)
    return diffuse + gloss * tint * (fresnel * sky_colour(mirrored) * ambient + highlight * SUN_COLOUR)


def camera_rays(pose: np.ndarray, size: int, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and un-normalised directions (3 n, -z component 1 in the camera) through points of the image,
    both in the model's units: a multiple of the direction, times SCALE, is a z-depth of the world."""
    focal = 0.5 * size / np.tan(0.5 * CAMERA_ANGLE_X)
    local = np.stack([(cols - 0.5 * size) / focal, -(rows - 0.5 * size) / focal, -np.ones_like(cols)])
    directions = (pose[:3, :3] @ local).astype(np.float32)
    origin = ((pose[:3, 3:] - [[0], [0], [LIFT]]) / SCALE).astype(np.float32)
    return np.broadcast_to(origin, directions.shape), directions


def render(field: Field, pose: np.ndarray, size: int, cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """RGBA (n 4, uint8, straight alpha) of the pixels (cols, rows): means over SAMPLES x SAMPLES rays each."""
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
    dy, dx = (d.ravel() for d in np.meshgrid(offsets, offsets, indexing="ij"))
    pixels = []
    for part in np.array_split(np.arange(len(cols)), -(-len(cols) // 1000)):  # blocks that fit the cache
        origins, directions = camera_rays(
            pose, size, (cols[part, None] + dx).ravel(), (rows[part, None] + dy).ravel()
        )
        directions = directions / np.linalg.norm(directions, axis=0)
        t = march(field, origins, directions)
        hit = np.flatnonzero(np.isfinite(t))
        colour, cover = np.zeros((3, len(t)), np.float32), np.isfinite(t).astype(np.float32)
        if len(hit):
            points = origins[:, hit] + t[hit] * directions[:, hit]
            colour[:, hit] = np.clip(shade(field, points, directions[:, hit]), 0, 1.5)
        alpha = cover.reshape(len(part), -1).mean(1)
        linear = colour.reshape(3, len(part), -1).mean(2) / np.maximum(alpha, 1e-6)
        pixels.append(np.concatenate([encode(linear), alpha[None]]).T)
    return np.rint(255 * np.concatenate(pixels)).astype(np.uint8)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear light to display values in 0..1, its brightest parts softly compressed."""
    return np.clip(1.16 * linear / (1 + 0.16 * linear), 0, 1) ** (1 / 2.2)


def depth(field: Field, pose: np.ndarray, size: int, cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """z-depths (n) of the surfaces seen through the centres of pixels, 0 where there is none."""
    origins, directions = camera_rays(pose, size, cols + 0.5, rows + 0.5)
    length = np.linalg.norm(directions, axis=0)
    t = march(field, origins, directions / length)
    return np.where(np.isfinite(t), SCALE * t / length, 0)


# ---------------------------------------------------------------- cameras and files


def look_at_origin(azimuth: float, height: float) -> np.ndarray:
    """A 4 x 4 camera-to-world pose at RADIUS, z up; `height` is the sine of the elevation."""
    flat = np.sqrt(1 - height**2)
    back = np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, height])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, RADIUS * back], axis=1)
    return pose


def spread_poses(n: int, seed: int) -> list[np.ndarray]:
    """Poses spread evenly over the upper hemisphere (a golden spiral, shaken), in random order."""
    random = np.random.default_rng(seed)
    order = random.permutation(n)
    azimuths = np.pi * (3 - np.sqrt(5)) * order + random.uniform(0, 2 * np.pi) + random.normal(0, 0.08, n)
    heights = 0.04 + 0.93 * (order + random.uniform(0.2, 0.8, n)) / n
    return [look_at_origin(a, h) for a, h in zip(azimuths, heights, strict=True)]


def round_poses(n: int) -> list[np.ndarray]:
    """Poses that go round the object once, rising and sinking."""
    turns = np.arange(n) / n
    heights = np.sin(np.radians(30 + 15 * np.sin(4 * np.pi * turns)))
    return [look_at_origin(2 * np.pi * t, h) for t, h in zip(turns, heights, strict=True)]


def poses_of(split: str, n: int) -> list[np.ndarray]:
    return round_poses(n) if split == "test" else spread_poses(n, SEEDS[split])


def all_pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = (index.ravel() for index in np.indices((size, size)))
    return cols, rows


def write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_file(path) as file:
        file.write(iio.imwrite("<bytes>", pixels, extension=".png", optimize=True))


def write_split(folder: Path, split: str, n: int, size: int, field: Field) -> None:
    """The images of a split, depth for test views, and its transforms file."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    cols, rows = all_pixels(size)
    frames = []
    for i, pose in enumerate(poses_of(split, n)):
        name = f"{split}/r_{i}"
        write_png(folder / f"{name}.png", render(field, pose, size, cols, rows).reshape(size, size, 4))
        if split == "test":
            z = depth(field, pose, size, cols, rows).reshape(size, size)
            write_png(folder / f"{name}_depth.png", np.rint(z / DEPTH_SCALE).astype(np.uint16))
        frames.append({"file_path": f"./{name}", "transform_matrix": pose.tolist()})
    content: dict = {"camera_angle_x": CAMERA_ANGLE_X}
    if split == "test":
        content["depth_scale"] = DEPTH_SCALE  # z-depth = pixel of r_0_depth.png * depth_scale; 0 = no surface
    content["frames"] = frames
    with atomic_file(folder / f"transforms_{split}.json") as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def run(argv: list[str]) -> int:
    parser = ScriptParser(description="Make the sample scene: a toy locomotive in Blender format.")
    parser.add_argument("--output", type=Path, default=Path("data/sample"), help="folder to write to")
    parser.add_argument("--size", type=POSITIVE, default=100, help="width and height of the images in pixels")
    parser.add_argument("--views", type=POSITIVE, nargs=3, default=list(VIEWS.values()),
                        metavar=("TRAIN", "VAL", "TEST"), help="how many views of each split")
    args = parser.parse_args(argv)
    started, field = time.monotonic(), Field()
    for split, n in zip(VIEWS, args.views, strict=True):
        print(f"{split}: {n} views", flush=True)
        write_split(args.output, split, n, args.size, field)
    print(f"{args.output}: {sum(args.views)} views of {args.size} x {args.size} in {time.monotonic() - started:.0f} s")
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("tools.sample_scene.make", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    raise SystemExit(main())
