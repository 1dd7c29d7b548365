"""transforms.json of several programs: round trips, and what is refused."""

import json
import math

import imageio.v3 as iio
import numpy as np
import pytest

from infonerf.scene.distortion import MODELS
from infonerf.scene.transforms import read_ply, read_transforms
from support.captures import change, lens, names, poses, sparse_points, square, write_ply, write_transforms
from support.scenes import random_pixels, refused


@pytest.fixture
def folder(tmp_path):
    return write_transforms(tmp_path / "capture")


def read(folder, allow_outside=False):
    return read_transforms(folder, allow_outside)


@pytest.mark.parametrize("model", MODELS)
def test_round_trip(tmp_path, model):
    capture = read(write_transforms(tmp_path, model=model))
    assert [view.name for view in capture.views] == [f"images/{name}" for name in names()]
    assert (len(capture.points), capture.errors, capture.splits, capture.notes) == (0, None, None, ())
    for view, pose in zip(capture.views, poses(), strict=True):
        np.testing.assert_allclose(view.pose, pose, rtol=0, atol=1e-9)
        assert (view.lens, view.image) == (lens(model), tmp_path / view.name)
        assert (view.mask, view.depth, view.pixels, view.points) == (None, None, None, None)


def only(**facts):
    """The file has these of a camera, and no others."""
    def edit(content):
        frames = content["frames"]
        content.clear()
        content.update(facts, frames=frames)
    return edit


HALF = math.pi / 2  # a field of view whose focal length is half the size


@pytest.mark.parametrize(("facts", "intrinsics"), [
    ({"camera_angle_x": HALF}, [10, 10, 10, 8]),
    ({"camera_angle_x": HALF, "camera_angle_y": HALF}, [10, 8, 10, 8]),
    ({"camera_angle_y": HALF}, [8, 8, 10, 8]),
    ({"fl_x": 12}, [12, 12, 10, 8]),
    ({"fl_x": 12, "camera_angle_x": 1.0, "camera_angle_y": 1.0}, [12, 12, 10, 8]),
    ({"fl_x": 12, "fl_y": 13, "cx": 9.5, "cy": 8.5}, [12, 13, 9.5, 8.5]),
    ({"fl_y": 13}, [13, 13, 10, 8]),
    ({"camera_angle_x": HALF, "w": 40.0, "h": 32.0}, [20, 20, 20, 16]),
], ids=str)  # fmt: skip
def test_ways_to_say_a_focal_length(folder, facts, intrinsics):
    change(folder, only(**facts))
    for view in read(folder).views:
        np.testing.assert_allclose(view.lens.intrinsics, intrinsics, rtol=1e-12)
        assert view.lens.is_pinhole


def test_a_frame_has_its_own(folder):
    def edit(content):
        content["frames"][2] |= {"fl_x": 30.5, "k1": 0.1, "camera_model": "OPENCV"}
        content["frames"][3] |= {"w": 40, "h": 32}
    change(folder, edit)
    views = read(folder).views
    assert (views[2].lens.fx, views[2].lens.coefficients[0], views[1].lens) == (30.5, 0.1, lens())
    assert (views[3].lens.width, views[3].lens.height) == (40, 32)


@pytest.mark.parametrize(("facts", "fisheye", "coefficients"), [
    ({"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4}, False, (0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0)),  # instant-ngp
    ({"k1": 0.1, "k4": 0.4, "is_fisheye": True}, True, (0.1, 0, 0, 0, 0, 0.4, 0, 0)),
    ({"k1": 0.1, "is_fisheye": False}, False, (0.1, 0, 0, 0, 0, 0, 0, 0)),
    ({"camera_model": "opencv", "k1": 0.1}, False, (0.1, 0, 0, 0, 0, 0, 0, 0)),
    ({"camera_model": "PINHOLE", "k1": 0, "p2": 0.0}, False, (0,) * 8),
])  # fmt: skip
def test_models(folder, facts, fisheye, coefficients):
    change(folder, only(fl_x=12, **facts))
    camera = read(folder).views[0].lens
    assert (camera.fisheye, camera.coefficients) == (fisheye, coefficients)


@pytest.mark.parametrize("spell", [
    lambda name: f"./images/{name}",
    lambda name: f"images\\{name}",
    lambda name: f".\\images\\{name}",
    lambda name: f"images/{name[:-4]}",
    lambda name: f"images\\{name[:-4]}",
])  # fmt: skip
def test_ways_to_write_a_path(folder, spell):
    def edit(content):
        for frame, name in zip(content["frames"], names(), strict=True):
            frame["file_path"] = spell(name)
    change(folder, edit)
    assert [view.image for view in read(folder).views] == [folder / "images" / name for name in names()]


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".webp", ".JPG", ".PNG"])
def test_endings_of_images(folder, ending):
    for name in names():
        (folder / "images" / name).unlink()
        path = folder / "images" / name.replace(".png", ending)
        iio.imwrite(path, random_pixels(0, 3, 16, 20), extension=ending.lower())
    change(folder, lambda c: [frame.update(file_path=frame["file_path"][:-4]) for frame in c["frames"]])
    assert {view.image.suffix for view in read(folder).views} == {ending}
    change(folder, lambda c: [frame.update(file_path=frame["file_path"] + ending) for frame in c["frames"]])
    assert {view.image.suffix for view in read(folder).views} == {ending}


def test_a_bom_and_a_matrix_of_three_rows(folder):
    change(folder, lambda c: [frame.update(transform_matrix=frame["transform_matrix"][:3]) for frame in c["frames"]])
    path = folder / "transforms.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_allclose([view.pose for view in read(folder).views], poses(), atol=1e-9)


def test_applied_transform_is_not_applied_again(folder):
    before = read(folder).views
    change(folder, lambda c: c.update(applied_transform=[[0, 1, 0, 3], [1, 0, 0, 2], [0, 0, -1, 9]]))
    assert [view.pose.tolist() for view in read(folder).views] == [view.pose.tolist() for view in before]


def test_frames_without_image_are_left_out(folder):
    for name in ("001.png", "004.png"):
        (folder / "images" / name).unlink()
    change(folder, only(camera_angle_x=1.0))
    capture = read(folder)
    assert len(capture.views) == 4
    assert capture.notes == ("2 of 6 views have no image file and are left out: images/001.png, images/004.png",)
    for name in names():
        (folder / "images" / name).unlink(missing_ok=True)
    with refused("found 6 views, none with a photograph, such as images/000.png"):
        read(folder)


def test_a_path_that_no_file_can_have_is_of_no_file(folder):
    change(folder, lambda c: [c["frames"][1].update(file_path="x" * 5000), c.update(ply_file_path="y" * 999)])
    capture = read(folder)
    assert len(capture.views) == 5 and len(capture.notes) == 2


def test_masks_and_depths(folder):
    def edit(content):
        content["depth_unit_scale_factor"] = 0.25
        for frame in content["frames"][:3]:
            frame |= {"mask_path": "masks\\m.png", "depth_file_path": "./depth/d.png"}
    change(folder, edit)
    views = read(folder).views
    assert (views[0].mask, views[0].depth) == (folder / "masks/m.png", folder / "depth/d.png")
    assert (views[0].depth_scale, views[3].mask, views[3].depth) == (0.25, None, None)
    change(folder, lambda c: c.pop("depth_unit_scale_factor"))
    assert read(folder).views[0].depth_scale == 0.001


def test_lists_of_a_split(folder):
    listed = [f"images/{name}" for name in names()]
    change(folder, lambda c: c.update(train_filenames=listed[:3], val_filenames=[], test_filenames=["./" + listed[5]]))
    assert read(folder).splits == {"train": set(listed[:3]), "val": set(), "test": {listed[5]}}
    change(folder, lambda c: c.update(test_filenames=["images/999.png"]))
    with refused("found 'images/999.png' in test_filenames, expected file_paths of frames"):
        read(folder)


def test_files_of_a_split(folder):
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").unlink()
    for split, part in {"train": slice(0, 3), "test": slice(3, 6)}.items():
        (folder / f"transforms_{split}.json").write_text(json.dumps(content | {"frames": content["frames"][part]}))
    capture = read(folder)
    listed = [f"images/{name}" for name in names()]
    assert capture.splits == {"train": set(listed[:3]), "test": set(listed[3:])}
    assert [view.name for view in capture.views] == listed
    for name in names()[3:]:
        (folder / "images" / name).unlink()
    capture = read(folder)
    assert [view.name for view in capture.views] == listed[:3]
    assert capture.notes[0].startswith("3 of 6 views have no image file")
    (folder / "transforms_train.json").unlink()
    with refused("found no transforms.json nor transforms_train.json"):
        read(folder)


def frame(number, **facts):
    return lambda c: c["frames"][number].update(facts)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: c.pop("frames"), "found None as frames, expected a list of at least one"),
    (lambda c: c.update(frames=[]), r"found \[\] as frames"),
    (lambda c: c.update(frames={}), r"found \{\} as frames"),
    (lambda c: c.update(frames=[3]), "found 3 as frame 0, expected an object with file_path"),
    (lambda c: c["frames"][1].pop("file_path"), "no file_path in frame 1"),
    (frame(1, file_path=3), "found 3 as file_path, expected the path of a file"),
    (frame(1, file_path=""), "found '' as file_path"),
    (frame(1, file_path="a\0b"), "as file_path, expected the path of a file"),
    (frame(1, file_path="../a.png"), "file_path '../a.png' leads out of the capture's folder"),
    (frame(1, file_path="..\\a.png"), "leads out of the capture's folder"),
    (frame(1, file_path="/etc/a.png"), "leads out of the capture's folder"),
    (frame(1, file_path="C:\\a.png"), "leads out of the capture's folder"),
    (frame(1, mask_path="../a.png"), "mask_path '../a.png' leads out"),
    (frame(1, depth_file_path=[1]), r"found \[1\] as depth_file_path"),
    (lambda c: c.update(ply_file_path="../a.ply"), "ply_file_path '../a.ply' leads out"),
    (lambda c: c["frames"][1].pop("transform_matrix"), "transform_matrix of images/001.png"),
    (frame(1, transform_matrix="x"), "found 'x' as transform_matrix of images/001.png"),
    (frame(1, transform_matrix=[[1, 2], [3]]), "as transform_matrix of images/001.png, expected a finite 4 x 4"),
    (frame(1, transform_matrix=[[1, 2], [3, 4]]), r"transform_matrix of images/001.png is of shape \(2, 2\)"),
    (frame(1, transform_matrix=[[1e999] * 4] * 4), "transform_matrix of images/001.png is not finite"),
    (frame(1, transform_matrix=[[1.0] * 4] * 4), "transform_matrix of images/001.png is singular"),
    (frame(1, transform_matrix=np.array(square(poses()[0])).T.tolist()),
     "images/001.png is of last row .* 1, expected"),
    (lambda c: c.update(camera_model="EQUIRECTANGULAR"), "found 'EQUIRECTANGULAR' as camera_model of images/000.png"),
    (lambda c: c.update(camera_model=["PINHOLE"]), r"found \['PINHOLE'\] as camera_model"),
    (lambda c: c.update(k1=0.1), "found k1 0.1 for images/000.png, expected 0, as its camera_model PINHOLE"),
    (lambda c: c.update(k1="0"), "found '0' as k1 of images/000.png, expected a number"),
    (lambda c: c.update(fl_x=0), "found 0 as fl_x of images/000.png, expected a number from 1e-06"),
    (lambda c: c.update(fl_x=True), "found True as fl_x"),
    (lambda c: c.update(fl_x=math.nan), "found nan as fl_x"),
    (lambda c: c.update(fl_x=10**400), "found 1000.* as fl_x"),
    (lambda c: c.update(cx=1e300), r"found 1e\+300 as cx"),
    (lambda c: c.update(w=0), "found 0 as w"),
    (lambda c: c.update(w=20.5), "found 20.5 x 16 as size of images/000.png, expected whole pixels"),
    (lambda c: c.update(w=10**9), "the camera of images/000.png is of size 1000000000 x 16"),
    (lambda c: c.pop("h"), "found None as h of images/000.png"),
    (lambda c: [c.pop("fl_x"), c.pop("fl_y")], "no fl_x nor camera_angle_x for images/000.png"),
    (only(camera_angle_x=4.0), "found camera_angle_x 4 for images/000.png, expected radians below pi"),
    (only(camera_angle_x=0), "found 0 as camera_angle_x"),
    (lambda c: c.update(train_filenames=3), "found 3 as train_filenames"),
    (lambda c: c.update(train_filenames=[3]), r"found \[3\] as train_filenames"),
    (frame(1, depth_unit_scale_factor=-1), "found -1 as depth_unit_scale_factor"),
])  # fmt: skip
def test_refused(folder, edit, message):
    change(folder, edit)
    with refused(rf"transforms\.json: .*{message}"):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff\xfe", b"[" * 99999])
def test_no_json(folder, content):
    (folder / "transforms.json").write_bytes(content)
    with refused(r"transforms\.json: (not valid JSON|found)"):
        read(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json(folder, encoding):
    path = folder / "transforms.json"
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert len(read(folder).views) == 6


def test_outside_where_it_is_allowed(folder):
    (folder / "transforms").mkdir()
    path = folder / "transforms.json"
    path.rename(folder / "transforms/transforms.json")
    edit = lambda c: [f.update(file_path="../" + f["file_path"]) for f in c["frames"]]  # noqa: E731
    change(folder / "transforms", edit)
    assert len(read(folder / "transforms", allow_outside=True).views) == 6
    change(folder / "transforms", frame(0, file_path=str(folder / "images/000.png")))
    assert len(read(folder / "transforms", allow_outside=True).views) == 6


# Points.


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
def test_points(folder, kind):
    write_ply(folder / "sparse_pc.ply", sparse_points(), kind)
    change(folder, lambda c: c.update(ply_file_path="sparse_pc.ply"))
    np.testing.assert_allclose(read(folder).points, sparse_points(), atol=1e-6)
    write_ply(folder / "sparse_pc.ply", sparse_points(0), kind)
    assert read(folder).points.shape == (0, 3)
    (folder / "sparse_pc.ply").unlink()
    capture = read(folder)
    assert len(capture.points) == 0 and "sparse_pc.ply: no such file" in capture.notes[0]


def test_points_that_are_not_finite_are_left_out(tmp_path):
    points = sparse_points(4)
    points[1, 0], points[2, 2] = np.nan, np.inf
    for kind in ("ascii", "binary_little_endian"):
        write_ply(tmp_path / "p.ply", points, kind)
        assert read_ply(tmp_path / "p.ply").shape == (2, 3)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize(("old", "new"), [
    (b"ply\n", b"obj\n"), (b"end_header", b"end"), (b"ascii", b"binary_big_endian"),
    (b"binary_little_endian", b"binary_big_endian"), (b"element vertex 60", b"element vertex 99999999999999"),
    (b"element vertex 60", b"element vertex x"), (b"element vertex", b"element edge"), (b"float y", b"float v"),
    (b"float y", b"matrix y"), (b"property float x", b"property list uchar float x"),
    (b"element vertex 60", b"element"),
    (b"element vertex 60", b"element vertex -1"), (b"float y", b"float x"), (b"format", b"fmt"),
])  # fmt: skip
def test_damaged_points(tmp_path, kind, old, new):
    path = tmp_path / "p.ply"
    write_ply(path, sparse_points(), kind)
    content = path.read_bytes()
    if old not in content or (kind == "ascii" and old == b"float y" and new == b"matrix y"):
        return
    path.write_bytes(content.replace(old, new, 1))
    with refused(r"p\.ply: cannot be read as points \(.+\), expected a PLY file"):
        read_ply(path)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
def test_cut_points(tmp_path, kind):
    path = tmp_path / "p.ply"
    write_ply(path, sparse_points(), kind)
    content = path.read_bytes()
    for size in range(0, len(content) - 30, 41):
        path.write_bytes(content[:size])
        with refused(r"p\.ply: cannot be read as points"):
            read_ply(path)
