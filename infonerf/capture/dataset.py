"""COLMAP's model of photographs -> a capture: upright, undistorted images of pinhole cameras, and their model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infonerf.capture.photographs import Photograph, working_name, write_undistorted


@dataclass(frozen=True, eq=False)
class Model:
    """What was found, in plain arrays. Axes: v registered photographs, of names `names`; n points.

    poses: v 3 4, camera to world; x right, y down, z forward. intrinsics: v 4, fx fy cx cy in pixels. sizes: v 2,
    height and width. points: n 3. colours: n 3, uint8. error: mean reprojection error in pixels. angle: median over
    the points of the largest angle between two of their rays, in degrees. folded: those of the photographs whose
    distortion shows places twice.
    """

    names: tuple[str, ...]
    poses: np.ndarray
    intrinsics: np.ndarray
    sizes: np.ndarray
    points: np.ndarray
    colours: np.ndarray
    error: float
    angle: float
    folded: tuple[str, ...] = ()

    @property
    def fields_of_view(self) -> np.ndarray:
        """v 2, horizontal and vertical, in degrees."""
        return np.degrees(2 * np.arctan(self.sizes[:, ::-1] / 2 / self.intrinsics[:, :2]))


def write_dataset(folder: Path, photographs: Sequence[Photograph], output: Path, step: Callable[[], None]) -> Model:
    """Read COLMAP's model of the working copies in `folder`; write images/ and sparse/0 to `output`.

    Where its camera has no distortion, a photograph that is stored upright is copied byte by byte.
    """
    import pycolmap

    model = pycolmap.Reconstruction(folder)
    by_name = {working_name(number): photograph for number, photograph in enumerate(photographs)}
    (output / "images").mkdir()
    (output / "sparse" / "0").mkdir(parents=True)
    undistorted = {key: pinhole(camera) for key, camera in model.cameras.items()}
    places: dict[int, np.ndarray | None] = {}
    folded = []
    for key in sorted(model.reg_image_ids(), key=lambda key: (model.image(key).camera_id, model.image(key).name)):
        image = model.image(key)
        old, new = model.cameras[image.camera_id], undistorted[image.camera_id]
        if image.camera_id not in places:
            places = {image.camera_id: undistortion(old, new)}  # of one camera at a time: they are large
        photograph = by_name[image.name]
        if places[image.camera_id] is not None and folds(places[image.camera_id]):
            folded.append(photograph.name)
        write_undistorted(photograph, output / "images" / photograph.name, places[image.camera_id])
        if len(image.points2D):
            moved = new.img_from_cam(with_depth(old.cam_from_img(np.array([point.xy for point in image.points2D]))))
            for point, xy in zip(image.points2D, moved, strict=True):
                point.xy = xy
        image.name = photograph.name
        step()
    for key, camera in undistorted.items():
        old = model.cameras[key]
        old.model, old.width, old.height, old.params = camera.model, camera.width, camera.height, camera.params
    model.write_binary(output / "sparse" / "0")
    return replace(plain(model), folded=tuple(folded))


def pinhole(camera):
    """The camera without distortion, PINHOLE: its image shows nothing that the old one does not."""
    import pycolmap

    if not np.any(camera.params[list(camera.extra_params_idxs())]):
        f = camera.focal_length
        params = [f, f, camera.principal_point_x, camera.principal_point_y]
        return pycolmap.Camera(camera_id=camera.camera_id, model="PINHOLE", width=camera.width, height=camera.height,
                               params=params)  # fmt: skip
    return pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)


def undistortion(old, new) -> np.ndarray | None:
    """h w 2 float32: for each pixel of the new camera its place in the image of the old one, in OpenCV's coordinates;
    None where they are the same camera."""
    if not np.any(old.params[list(old.extra_params_idxs())]):
        return None
    rows = []
    for row in range(new.height):
        pixels = np.stack([np.arange(new.width) + 0.5, np.full(new.width, row + 0.5)], axis=1)
        rows.append(old.img_from_cam(with_depth(new.cam_from_img(pixels))).astype(np.float32) - np.float32(0.5))
    return np.stack(rows)


def folds(places: np.ndarray) -> bool:
    """Whether places (h w 2) are somewhere not in the order of their pixels: what is there is shown twice."""
    if min(places.shape[:2]) < 2:
        return False
    right, down = (np.diff(places.astype(np.float64), axis=axis) for axis in (1, 0))
    right, down = right[:-1], down[:, :-1]
    return not bool((right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] > 0).all())


def with_depth(places: np.ndarray) -> np.ndarray:
    """n 2 -> n 3, on the plane z = 1."""
    return np.concatenate([places, np.ones((len(places), 1))], axis=1)


def plain(model) -> Model:
    """A pinhole model of COLMAP as arrays, its photographs by name."""
    images = sorted((model.image(key) for key in model.reg_image_ids()), key=lambda image: image.name)
    cameras = [model.cameras[image.camera_id] for image in images]
    world_from_cam = [image.cam_from_world().inverse().matrix() for image in images]
    points = list(model.points3D.values())
    model.update_point_3d_errors()
    places = np.array([point.xyz for point in points]).reshape(-1, 3)
    centres = {image.image_id: pose[:, 3] for image, pose in zip(images, world_from_cam, strict=True)}
    seen_from = [np.array([centres[element.image_id] for element in point.track.elements]) for point in points]
    return Model(
        names=tuple(image.name for image in images),
        poses=np.stack(world_from_cam),
        intrinsics=np.array([camera.params for camera in cameras]),
        sizes=np.array([(camera.height, camera.width) for camera in cameras]),
        points=places,
        colours=np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3),
        error=float(model.compute_mean_reprojection_error()),
        angle=float(np.median([largest_angle(*pair) for pair in zip(places, seen_from, strict=True)] or [0])),
    )


def largest_angle(point: np.ndarray, centres: np.ndarray) -> float:
    """Between the rays of two of the centres (n 3) to a point, in degrees."""
    rays = point - centres
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
