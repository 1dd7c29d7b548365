"""Camera paths: smooth, in files of nerfstudio's format, from world to world; and render_mypath of such a file."""

import json
import os

import imageio.v3 as iio
import numpy as np
import pytest

import run_nerf
from infonerf.scene.poses import spline
from infonerf.viewer.paths import (
    CameraPath,
    as_json,
    cameras_of,
    cardinal,
    moved,
    parse_path,
    path_through,
    read_path,
    to_files_world,
    write_path,
)
from support.runs import options
from support.scenes import memory_scene, poses_around, refused

POSES = np.stack([pose[:3] for pose in poses_around(5)])
FOVS = np.array([40.0, 50, 60, 50, 40])


def path_of(cycle=True, tension=0.0, **more) -> CameraPath:
    given = {"size": (20, 30), "fps": 10.0, "seconds": 2.0} | more
    return path_through(POSES, FOVS, cycle=cycle, tension=tension, **given)


def test_a_closed_path_passes_its_keyframes():
    path = path_of()
    assert path.poses.shape == (20, 3, 4)
    np.testing.assert_allclose(path.poses[::4, :, 3], POSES[:, :, 3], atol=1e-9)
    np.testing.assert_allclose(path.poses[::4], POSES, atol=1e-6)
    np.testing.assert_allclose(path.fovs[::4], FOVS)


def test_an_open_path_begins_and_ends_at_keyframes():
    path = path_of(cycle=False, seconds=1.7)
    assert len(path.poses) == 17
    np.testing.assert_allclose(path.poses[::4], POSES, atol=1e-6)


def test_tension_pulls_it_straight():
    values, t = np.random.default_rng(0).random((5, 3)), np.linspace(0, 4.99, 50)
    np.testing.assert_allclose(cardinal(values, t, True, 0.0), spline(values, t))
    middle = cardinal(values, np.array([1.5]), False, 1.0)[0]
    np.testing.assert_allclose(middle, (values[1] + values[2]) / 2)


@pytest.mark.parametrize("cycle", [True, False])
@pytest.mark.parametrize("n", [1, 2])
def test_few_keyframes(n, cycle):
    path = path_through(POSES[:n], FOVS[:n], (4, 4), 10, 1, cycle, 0.0)
    assert len(path.poses) == 10 and np.isfinite(path.poses).all()
    np.testing.assert_allclose(path.poses[0], POSES[0], atol=1e-6)


def test_between_opposite_keyframes_it_leads_around():
    ends = np.stack([poses_around(2)[0][:3], poses_around(2)[1][:3]])
    for cycle in (True, False):
        poses = path_through(ends, np.array([40.0, 40]), (4, 4), 10, 2, cycle, 0.0).poses
        assert np.isfinite(poses).all() and np.linalg.norm(poses[:, :, 3], axis=-1).min() > 2
        squares = poses[:, :, :3].transpose(0, 2, 1) @ poses[:, :, :3]
        np.testing.assert_allclose(squares, np.eye(3)[None].repeat(20, 0), atol=1e-9)


def test_cameras_have_the_files_field_of_view():
    scene = memory_scene()
    cameras = cameras_of(path_of(), scene.cameras)
    focal = 10 / np.tan(np.radians(20))
    np.testing.assert_allclose(cameras.intrinsics[0], [focal, focal, 15, 10])
    assert cameras.sizes == ((20, 30),) * 20 and cameras.far == scene.far


def test_written_and_read_again_it_is_the_same(tmp_path):
    path = path_of(cycle=False, tension=0.25)
    write_path(tmp_path / "p.json", path)
    again = read_path(tmp_path / "p.json")
    assert (again.size, again.fps, again.seconds, again.cycle, again.tension) == ((20, 30), 10, 2, False, 0.25)
    for name in ("keyframes", "keyframe_fovs", "poses", "fovs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(path, name))


def test_the_file_has_the_entries_that_nerfstudio_reads():
    content = json.loads(as_json(path_of()))
    assert set(content) == {"camera_type", "render_height", "render_width", "fps", "seconds", "is_cycle",
                            "smoothness_value", "keyframes", "camera_path"}  # fmt: skip
    assert set(content["keyframes"][0]) == {"matrix", "fov", "aspect"}
    frame = content["camera_path"][0]
    assert set(frame) == {"camera_to_world", "fov", "aspect"} and frame["aspect"] == 1.5
    np.testing.assert_allclose(np.reshape(frame["camera_to_world"], (4, 4))[:3], POSES[0], atol=1e-6)


def test_keyframes_alone_are_enough():
    content = json.loads(as_json(path_of())) | {"camera_path": []}
    np.testing.assert_allclose(parse_path(json.dumps(content), "p").poses, path_of().poses)


def test_older_files_have_keyframes_column_by_column_as_text():
    content = json.loads(as_json(path_of()))
    for keyframe in content["keyframes"]:
        matrix = np.reshape(keyframe["matrix"], (4, 4)).T.reshape(-1).tolist()
        keyframe |= {"matrix": json.dumps(matrix), "properties": json.dumps([["FOV", keyframe.pop("fov")]])}
    path = parse_path(json.dumps(content), "p")
    np.testing.assert_allclose(path.keyframes, POSES)
    np.testing.assert_allclose(path.keyframe_fovs, FOVS)


def test_worlds():
    world = np.eye(4)
    world[:3] = 2 * np.array([[0, -1, 0, 1.0], [1, 0, 0, 2], [0, 0, 1, 3]])
    path = path_of()
    there = moved(path, world)
    np.testing.assert_allclose(there.poses[:, :, 3], path.poses[:, :, 3] @ world[:3, :3].T + world[:3, 3])
    np.testing.assert_allclose(there.poses[:, :, :3], world[:3, :3] / 2 @ path.poses[:, :, :3])
    np.testing.assert_allclose(to_files_world(there, world).poses, path.poses, atol=1e-9)
    assert to_files_world(path, None) is path


@pytest.mark.parametrize("change, message", [
    ("not json", "no JSON"),
    ("[" * 100_000, "no JSON"),
    ("[]", "no entries by name"),
    ({"camera_type": "fisheye"}, "fisheye.*expected 'perspective'"),
    ({"render_height": 0}, "render_height is 0, expected a number from 1"),
    ({"render_width": "wide"}, "render_width is 'wide'"),
    ({"render_height": None}, "render_height is None"),
    ({"fps": float("nan")}, "fps is nan"),
    ({"camera_path": [], "keyframes": []}, "neither camera_path nor keyframes"),
    ({"camera_path": 3}, "camera_path is no list"),
    ({"camera_path": [3]}, "camera_path 0 is no camera"),
    ({"camera_path": [{"camera_to_world": [1, 2], "fov": 40}]}, "camera_path 0: camera_to_world is not 16 numbers"),
    ({"camera_path": [{"camera_to_world": [0] * 16, "fov": 40}]}, "last row"),
    ({"camera_path": [{"camera_to_world": [0] * 15 + [1], "fov": 40}]}, "singular"),
    ({"camera_path": [{"camera_to_world": np.eye(4).tolist(), "fov": 400}]}, "camera_path 0: fov is 400"),
    ({"keyframes": [{"matrix": "[" * 9999, "fov": 40}]}, "keyframes 0: matrix is not 16 numbers"),
    ({"keyframes": [{"matrix": np.eye(4).tolist(), "properties": "[" * 9999}]}, "keyframes 0: fov is None, expected"),
    ({"fps": "9" * 10**6}, "fps is '999.* [.][.][.] .*9', expected a number from 0.1 to 1000"),
])  # fmt: skip
def test_a_file_that_is_no_path_is_refused_in_one_line(tmp_path, change, message):
    content = change if isinstance(change, str) else json.dumps(json.loads(as_json(path_of())) | change)
    (tmp_path / "p.json").write_text(content)
    with refused(message):
        read_path(tmp_path / "p.json")


def test_a_file_that_cannot_be_read(tmp_path):
    with refused("nothing.json: cannot be read"):
        read_path(tmp_path / "nothing.json")
    os.mkfifo(tmp_path / "pipe.json")
    with refused(r"pipe.json: cannot be read as a camera path \(no file\)"):
        read_path(tmp_path / "pipe.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with refused("no text"):
        read_path(tmp_path / "b.json")


def test_render_mypath_takes_a_file(blender, tmp_path, capsys):
    write_path(tmp_path / "turn.json", path_of(seconds=0.3, size=(8, 12)))
    assert run_nerf.main(options(blender, tmp_path, "--N_iters", "1")) == 0
    extra = ["--render_only", "--render_mypath", "--path", str(tmp_path / "turn.json")]
    assert run_nerf.main(options(blender, tmp_path, *extra)) == 0
    folder = tmp_path / "logs" / "run" / "renderonly_path_000001"
    assert sorted(file.name for file in folder.iterdir()) == [
        "turn_depth.gif", "turn_depth.mp4", "turn_rgb.gif", "turn_rgb.mp4"
    ]  # fmt: skip
    assert iio.imread(folder / "turn_rgb.gif").shape == (3, 8, 12, 3)
    capsys.readouterr()
    assert run_nerf.main(options(blender, tmp_path, *extra[:-1], str(tmp_path / "none.json"))) == 2
    assert "none.json: cannot be read as a camera path" in capsys.readouterr().err
