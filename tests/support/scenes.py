"""Small scenes and networks for tests: in memory, and as files of each data set."""

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from torch import Tensor

from infonerf.fields.field import CoarseFine
from infonerf.fields.nerf import NeRF
from infonerf.scene.cameras import NDC, Cameras, Rays
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.system.errors import InputError

HEIGHT, WIDTH = 8, 10


def look_at_origin(azimuth: float, elevation: float, radius: float = 4.0) -> np.ndarray:
    """A 4 x 4 camera-to-world pose that looks at the origin, z up; angles in degrees."""
    a, e = np.radians([azimuth, elevation])
    position = radius * np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    back = position / radius
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return pose


def poses_around(n: int, first: float = 0.0) -> list[np.ndarray]:
    return [look_at_origin(first + 360.0 * i / n, 15.0 + 5.0 * i) for i in range(n)]


def random_pixels(seed: int, channels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def memory_scene(n_views: int = 6, train=(0, 1), white: bool = False, pixel_center: float = 0.0, sizes=None) -> Scene:
    """Views of random pixels around the origin, with intrinsics that differ from view to view."""
    views = range(n_views)
    intrinsics = np.array([[12.0 + 0.1 * v, 11.0 - 0.1 * v, 5.0 + 0.2 * v, 4.0] for v in views])
    poses = np.stack([pose[:3] for pose in poses_around(n_views)])
    sizes = sizes or [(HEIGHT, WIDTH)] * n_views
    return Scene(
        name="memory",
        view_names=tuple(f"v_{view}" for view in views),
        cameras=Cameras.of_arrays(poses, intrinsics, sizes, 2.0, 6.0, pixel_center),
        split=Split(train=tuple(train), val=(n_views - 1,), test=(n_views - 1,), unseen=tuple(views)),
        photographs=Photographs(lambda view: random_pixels(view, 3, *sizes[view]).astype(np.float32) / 255),
        white_background=white,
    )


def forward_poses(n: int) -> np.ndarray:
    """v 3 4: cameras near the origin that look along about -z."""
    rng, poses = np.random.default_rng(5), []
    for _ in range(n):
        turn, _ = np.linalg.qr(np.eye(3) + 0.05 * rng.normal(size=(3, 3)))
        poses.append(np.column_stack([turn * np.sign(np.diag(turn)), rng.uniform(-0.3, 0.3, 3)]))
    return np.stack(poses)


def forward_scene(n_views: int = 6) -> Scene:
    """The views of `memory_scene` from cameras that look one way, in NDC."""
    scene = memory_scene(n_views, pixel_center=0.5)
    cameras = replace(scene.cameras, poses=torch.from_numpy(forward_poses(n_views)), near=0.0, far=1.0,
                      ndc=NDC(2.4, 2.75))  # fmt: skip
    return replace(scene, cameras=cameras)


def known_at_random(scene: Scene, n: int = 50, seed: int = 0) -> Scene:
    """The scene with known depths, from near to far, of random places in the images of all its views."""
    rng, (heights, widths) = np.random.default_rng(seed), np.transpose(scene.cameras.sizes)
    views = rng.integers(0, len(scene.view_names), n)
    cols, rows = rng.random(n) * widths[views], rng.random(n) * heights[views]
    depths, weights = rng.uniform(scene.near, scene.far, n), rng.uniform(0.5, 1.5, n)
    return replace(scene, known_depths=KnownDepths(views, cols, rows, depths, weights / weights.mean()))


def with_photographs(scene: Scene, **readers) -> Scene:
    """The scene with other readers of image, alpha, mask or depth."""
    return replace(scene, photographs=replace(scene.photographs, **readers))


def scene_cameras(views=(3, 0, 5), pixel_center: float = 0.0, dtype: torch.dtype = torch.float64) -> Cameras:
    return memory_scene(pixel_center=pixel_center).cameras.at(views).to("cpu", dtype)


def transparent_cameras(n: int) -> Cameras:
    """Cameras whose rays tell what they are: the origin is (view, 0, 0), the direction (col, -row, -1)."""
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(n, 1, 1)
    poses[:, 0, 3] = torch.arange(n)
    intrinsics = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).repeat(n, 1)
    return Cameras(poses, intrinsics, ((HEIGHT, WIDTH),) * n, 2.0, 6.0)


def read_rays(rays: Rays) -> Tensor:
    """Rays of `transparent_cameras` -> view, row, col of each, r 3."""
    return torch.stack([rays.origins[:, 0], -rays.directions[:, 1], rays.directions[:, 0]], dim=1).long()


def small_networks(n_importance: int, use_viewdirs: bool, dtype=torch.float64, depth: int = 6, width: int = 8):
    """Two networks of random weights whose densities are positive at about half of all points."""
    generator = torch.Generator().manual_seed(7)

    def network():
        net = NeRF(depth, width, multires=2, multires_views=1, use_viewdirs=use_viewdirs,
                   output_ch=5 if n_importance else 4, generator=generator)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.7)
        return net.to(dtype)

    return CoarseFine(network(), network() if n_importance else None)


def write_blender(folder, counts=(4, 8, 16), channels: int = 4, height: int = HEIGHT, width: int = WIDTH):
    """A scene in the layout of NeRF synthetic, `counts` views for train, val and test."""
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        (folder / split).mkdir(parents=True)
        frames = []
        for i, pose in enumerate(poses_around(count, first=7.0)):
            iio.imwrite(folder / split / f"r_{i}.png", random_pixels(1000 * len(split) + i, channels, height, width))
            frames.append({"file_path": f"./{split}/r_{i}", "rotation": 0.1, "transform_matrix": pose.tolist()})
        content = {"camera_angle_x": 0.6911112070083618, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def write_depth(folder, scale: float = 0.0001, split: str = "test"):
    """Random depth images for a split of `write_blender`, a third of it empty. Returns view name -> values."""
    path = folder / f"transforms_{split}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"depth_scale": scale}))
    values = {}
    for i, frame in enumerate(content["frames"]):
        rng, name = np.random.default_rng(i), frame["file_path"][2:]
        shape = iio.imread(folder / f"{name}.png").shape[:2]
        values[name] = (rng.integers(20001, 60000, shape) * (rng.random(shape) > 1 / 3)).astype(np.uint16)
        iio.imwrite(folder / f"{name}_depth.png", values[name])
    return values


def dtu_cameras(n: int, height: int = HEIGHT, width: int = WIDTH) -> list[dict]:
    """Intrinsics (3 3), OpenGL pose (4 4, in the scaled world) and the scale matrix (4 4) of n cameras."""
    scale = np.diag([3.0, 3.0, 3.0, 1.0])
    scale[:3, 3] = [0.5, -0.25, 1.0]
    return [
        {
            "k": np.array([[20.0 + i, 0, 5.2 * width / WIDTH], [0, 21.0 + i, 3.9 * height / HEIGHT], [0, 0, 1]]),
            "pose": look_at_origin(30.0 * i, 10.0 + 3 * i, radius=2.5),
            "scale": scale,
        }
        for i in range(n)
    ]


def dtu_projection(camera: dict) -> np.ndarray:
    """The world matrix (4 4) whose loading gives the camera back: the loader's mathematics run backwards."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    pose = flip @ camera["pose"] @ flip  # OpenCV
    centre = np.diag(camera["scale"])[:3] * pose[:3, 3] + camera["scale"][:3, 3]
    rotation = pose[:3, :3].T
    world = np.eye(4)
    world[:3] = camera["k"] @ np.concatenate([rotation, -rotation @ centre[:, None]], axis=1)
    return 1.7 * world  # a projection is known up to scale


def write_dtu(folder, n: int = 6, masks: bool = True, height: int = HEIGHT, width: int = WIDTH):
    """A scan in the layout of DTU; masks are white in their left half."""
    (folder / "image").mkdir(parents=True)
    matrices = {}
    for i, camera in enumerate(dtu_cameras(n, height, width)):
        iio.imwrite(folder / "image" / f"{i:06d}.png", random_pixels(i, 3, height, width))
        matrices[f"world_mat_{i}"], matrices[f"scale_mat_{i}"] = dtu_projection(camera), camera["scale"]
    np.savez(folder / "cameras.npz", **matrices)
    if masks:
        (folder / "mask").mkdir()
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 255
        for i in range(n):
            iio.imwrite(folder / "mask" / f"{i:03d}.png", mask)
    return folder


def poses_bounds(poses: np.ndarray, hwf, bounds: np.ndarray) -> np.ndarray:
    """v 17, as in poses_bounds.npy, of OpenGL poses (v 3 4), height, width and focal length, and depths (v 2)."""
    right, up, back, centre = np.moveaxis(poses, -1, 0)
    fifth = np.broadcast_to(np.asarray(hwf, float), centre.shape)
    columns = np.stack([-up, right, back, centre, fifth], axis=-1)
    return np.concatenate([columns.reshape(-1, 15), bounds], axis=1)


def llff_cameras(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses (v 3 4) in a world that is turned, moved and scaled, and depths (v 2)."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn = turn * np.linalg.det(turn)
    poses = forward_poses(n)
    centres = 5 * poses[:, :, 3] @ turn.T + [3, -2, 7]
    return np.concatenate([turn @ poses[:, :, :3], centres[..., None]], axis=-1), np.array(
        [[9.0 + 0.1 * i, 80.0 - i] for i in range(n)]
    )


def write_llff(folder, n: int = 9, factor: int = 8, height: int = HEIGHT, width: int = WIDTH):
    """A scene in the layout of LLFF, whose images are of 1/factor of the size of which its poses tell."""
    images = folder / ("images" if factor == 1 else f"images_{factor}")
    images.mkdir(parents=True)
    for i in range(n):
        iio.imwrite(images / f"image{i:03d}.png", random_pixels(i, 3, height, width))
    poses, bounds = llff_cameras(n)
    np.save(folder / "poses_bounds.npy", poses_bounds(poses, [factor * height, factor * width, 12.0 * factor], bounds))
    return folder


# What tests of loaders share.


def refused(message: str):
    """Expect an InputError of one line in which the pattern `message` is found."""
    return pytest.raises(InputError, match=rf"\A.*{message}.*\Z")


def names(scene, split):
    return [scene.view_names[view] for view in getattr(scene.split, split)]


def halved(pixels):
    """Means of 2 x 2 blocks."""
    return pixels.reshape(pixels.shape[0] // 2, 2, pixels.shape[1] // 2, 2, -1).mean((1, 3))


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"not an image")


def cut(path, keep=100):
    path.write_bytes(path.read_bytes()[:keep])


def without(name):
    return lambda c: {key: value for key, value in c.items() if key != name}
