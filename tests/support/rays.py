"""Rays of the reference, and their comparison."""

import torch

from support import reference


def reference_rays(cameras, pixels, poses=None):
    """The reference's rays of `pixels`, of `poses` where they replace the cameras' own."""
    poses = cameras.poses if poses is None else poses
    pairs = [
        reference.pixel_ray(poses[view], *cameras.intrinsics[view].tolist(), row, col)
        for view, row, col in zip(*(numbers.tolist() for numbers in pixels), strict=True)
    ]
    return [torch.stack(vectors) for vectors in zip(*pairs, strict=True)]


def assert_rays(rays, origins, directions, **tolerance):
    torch.testing.assert_close(rays.origins, origins.to(rays.origins), **tolerance)
    torch.testing.assert_close(rays.directions, directions.to(rays.directions), **tolerance)
