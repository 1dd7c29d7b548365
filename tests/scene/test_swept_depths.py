"""Known depths of a scene by its photographs: coordinates, files, what is refused."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infonerf.scene import swept_depths as module
from infonerf.scene.swept_depths import inverse_range, sources_of, swept_depths, view_of, write_picture
from infonerf.scene.trusted_depths import DepthMap
from support.scenes import forward_scene, memory_scene, with_photographs
from support.walls import HEIGHT, WIDTH, wall_scene


@pytest.fixture
def made_up(monkeypatch):
    """A sweep that costs nothing; how often it was done."""
    calls = []

    def sweep_all(views, nearest, farthest, device):
        calls.append(len(views))
        generator = torch.Generator().manual_seed(1)
        confidence = [torch.rand(view.grey.shape, generator=generator).round(decimals=1) for view in views]
        return [DepthMap(2 + part, torch.where(part > 0.8, part, 0)) for part in confidence]

    monkeypatch.setattr(module, "sweep_all", sweep_all)
    return calls


@pytest.mark.parametrize("longest", [512, 64])
def test_known_depths_are_those_of_the_wall(tmp_path, monkeypatch, longest):
    """Of reduced photographs too, whose pixels are larger."""
    monkeypatch.setattr(module, "LONGEST", longest)
    scene, depths = wall_scene()
    known = swept_depths(scene, tmp_path)
    assert len(known) > 0.4 * 3 * HEIGHT * WIDTH * min(longest / WIDTH, 1) ** 2
    assert known.weights.mean() == pytest.approx(1) and set(known.views) == {0, 1, 2}
    true = np.stack(depths)[known.views, known.rows.astype(int), known.cols.astype(int)]
    error = np.abs(known.depths / true - 1)
    assert np.median(error) < 0.004 and np.quantile(error, 0.95) < 0.02


def test_depths_are_read_where_they_were_swept_before(tmp_path, made_up):
    scene = memory_scene(6, train=(0, 1, 2))
    first, again = (swept_depths(scene, tmp_path / "kept") for _ in range(2))
    assert made_up == [3]
    for name in ("views", "cols", "rows", "depths", "weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".npz"]


@pytest.mark.parametrize("change", ["photograph", "camera", "range", "views"])
def test_other_inputs_are_swept_anew(tmp_path, made_up, change):
    scene = memory_scene(6, train=(0, 1, 2))
    swept_depths(scene, tmp_path)
    if change == "photograph":
        image = scene.photographs.image
        scene = with_photographs(scene, image=lambda view: image(view) + np.float32(1e-3))
    elif change == "camera":
        scene = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics + 0.01))
    elif change == "range":
        scene = replace(scene, cameras=replace(scene.cameras, far=7.0))
    else:
        scene = replace(scene, split=replace(scene.split, train=(2, 1, 0)))
    swept_depths(scene, tmp_path)
    assert made_up == [3, 3]


def test_damaged_files_are_made_anew(tmp_path, made_up):
    scene = memory_scene(6, train=(0, 1))
    expected = swept_depths(scene, tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    wrong = tmp_path / "wrong.npz"
    shape = view_of(scene, 0, torch.from_numpy(scene.photographs.image(0))).grey.shape
    arrays = {f"{name}_{i}": np.ones(shape, np.float32) for i in (0, 1) for name in ("depth", "confidence")}
    flipped = bytearray(whole)
    for place in range(200, len(whole), 7):
        flipped[place] ^= 0x55
    contents = [b"", whole[:100], whole[:-30], b"no zip", bytes(flipped)]
    for key, bad in (("depth_0", np.ones((2, 2), np.float32)), ("depth_1", np.full(shape, np.nan, np.float32)),
                     ("depth_0", np.zeros(shape, np.float32)), ("confidence_0", np.full(shape, 1e300)),
                     ("depth_0", np.array([{}], dtype=object)), ("confidence_1", -np.ones(shape, np.float32))):
        np.savez(wrong, **{**arrays, key: bad})
        contents.append(wrong.read_bytes())
    for i, content in enumerate(contents):
        path.write_bytes(content)
        found = swept_depths(scene, tmp_path)
        assert len(made_up) == i + 2
        np.testing.assert_array_equal(found.depths, expected.depths)


def test_two_that_write_the_same_do_not_meet(tmp_path, made_up, capsys):
    """One writes while another one has begun to."""
    write, scene = module.np.savez_compressed, memory_scene(6, train=(0, 1))

    def slow(file, **arrays):
        child = os.fork()
        if child == 0:
            module.np.savez_compressed = write
            os._exit(0 if len(swept_depths(scene, tmp_path)) else 1)
        file.write(b"half")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        file.seek(0)
        write(file, **arrays)

    module.np.savez_compressed = slow
    try:
        found = swept_depths(scene, tmp_path)
    finally:
        module.np.savez_compressed = write
    assert "not kept" not in capsys.readouterr().out and len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(swept_depths(scene, tmp_path).depths, found.depths)
    assert made_up == [2]


def test_another_version_of_the_sweep_sweeps_anew(tmp_path, made_up, monkeypatch):
    scene = memory_scene(6, train=(0, 1))
    swept_depths(scene, tmp_path)
    for place, file in enumerate(module.SOURCE_FILES):
        changed = tmp_path / "changed.py"
        changed.write_text(Path(file).read_text() + "# changed\n")
        files = [*module.SOURCE_FILES]
        files[place] = changed
        with monkeypatch.context() as patch:
            patch.setattr(module, "SOURCE_FILES", files)
            swept_depths(scene, tmp_path)
    assert made_up == [2, 2, 2, 2]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path, made_up, capsys, share):
    """On a full disk, where what is missing is said."""
    scene = memory_scene(6, train=(0, 1))
    swept_depths(scene, tmp_path / "whole")
    [whole] = (tmp_path / "whole").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole.stat().st_size), hard))
    try:
        assert len(swept_depths(scene, tmp_path / "full"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "full").iterdir()) == []
    assert "are not kept for other runs" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path, made_up, capsys):
    (tmp_path / "file").write_text("")
    assert len(swept_depths(memory_scene(), tmp_path / "file")) > 0
    out = capsys.readouterr().out
    assert "are not kept for other runs" in out and len(out.splitlines()) == 1


def test_a_single_photograph_knows_nothing(tmp_path):
    assert swept_depths(memory_scene(train=(0,)), tmp_path) is None


def test_the_picture_has_a_row_a_view(tmp_path, made_up):
    known = swept_depths(memory_scene(6, train=(0, 1, 2)), tmp_path)
    write_picture(known, tmp_path)
    with Image.open(tmp_path / "plane_sweep.jpg") as picture:
        assert picture.width == 900 and picture.height % 3 == 0
    write_picture(None, tmp_path)  # a later run without
    assert not (tmp_path / "plane_sweep.jpg").exists()


def test_photographs_from_one_place_tell_no_depth(tmp_path):
    """Copies, and a camera that is only turned: every depth would suit them."""
    scene, _ = wall_scene()
    poses = scene.cameras.poses.clone()
    poses[1:, :, 3] = poses[0, :, 3]
    poses[2] = poses[0]
    image = scene.photographs.image
    scene = replace(scene, cameras=replace(scene.cameras, poses=poses))
    assert swept_depths(with_photographs(scene, image=lambda view: image(0)), tmp_path) is None


def test_photographs_of_a_row_of_pixels_know_nothing(tmp_path):
    assert swept_depths(memory_scene(train=(0, 1, 2), sizes=[(1, 9)] * 6), tmp_path) is None


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (7, 4)])
def test_photographs_smaller_than_a_window(tmp_path, size):
    known = swept_depths(memory_scene(train=(0, 1, 2), sizes=[size] * 6), tmp_path)
    assert known is None or np.isfinite(known.depths).all()


def test_range_of_depths():
    assert inverse_range(memory_scene()) == (1 / 2, 1 / 6)
    scene = forward_scene()
    nearest, farthest = inverse_range(scene)
    assert farthest == 0
    assert nearest == pytest.approx(1 / (1 + scene.poses[[0, 1], 2, 3].min()))
    at_the_camera = replace(memory_scene(), cameras=replace(memory_scene().cameras, near=0.0))
    assert inverse_range(at_the_camera) == (1 / 0.12, 1 / 6)


def test_sources_are_the_nearest_directions():
    scene = memory_scene(6, train=range(6))
    views = [view_of(scene, i, torch.from_numpy(scene.photographs.image(i))) for i in range(6)]
    ahead = torch.stack([view.rotation[2] for view in views])
    for i in range(6):
        angles = torch.rad2deg(torch.acos((ahead @ ahead[i]).clamp(-1, 1)))
        expected = [j for j in angles.argsort().tolist() if j != i and angles[j] <= module.WIDEST][: module.SOURCES]
        assert sorted(sources_of(views, i, depths=1.0)) == sorted(expected)
