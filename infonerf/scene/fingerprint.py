"""Whether two processes have loaded the same scene."""

import hashlib
from dataclasses import astuple

from infonerf.scene.scene import Scene


def fingerprint(scene: Scene) -> str:
    """Hexadecimal digits that change with its cameras, its split, and the pixels of its training views."""
    cameras = scene.cameras
    said = scene.view_names, astuple(scene.split), cameras.sizes, cameras.near, cameras.far, cameras.ndc
    digest = hashlib.sha256(repr(said).encode())
    for array in (scene.poses, cameras.intrinsics.numpy(), *map(scene.photographs.image, scene.split.train)):
        digest.update(array.tobytes())
    return digest.hexdigest()
