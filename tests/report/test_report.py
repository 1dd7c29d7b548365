"""report.py: the page against the runs' files, its escapes and pictures, and bad input."""

import base64
import json
import shutil
import sys
from html.parser import HTMLParser

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import torch

import evaluate
import run_nerf
from infonerf.export import files
from infonerf.rendering.pictures import depth_colours, entropy_colours, write_gif
from infonerf.report import read
from infonerf.report.events import read_scalars
from infonerf.report.page import Axis, best, element, linear_ticks
from infonerf.report.read import (
    OF_PHOTOGRAPHS,
    as_uint8,
    chosen,
    encoded,
    error_colours,
    error_map,
    labels_of,
    thinned,
)
from loss import ray_entropy
from report import main
from run_nerf_helpers import open_run
from support.runs import LOSSES, options
from support.scenes import write_blender, write_depth, write_dtu

VOID = {"meta", "img", "source", "input"}


class Page(HTMLParser):
    """A page's elements, and the text of its cells, notes and headings; fails where tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append([tag, "", len(self.open)])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        depth = len(self.open) + 1
        for entry in reversed(self.texts):
            if entry[2] < depth:
                entry[1], depth = entry[1] + data, entry[2]

    def all(self, tag, class_=None):
        found = [attributes for name, attributes in self.elements if name == tag]
        return [given for given in found if class_ is None or class_ in (given.get("class") or "").split()]

    def text(self, tag):
        return [" ".join(text.split()) for name, text, _ in self.texts if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Evaluated runs `nerf` and `info` of a Blender scene, `scan` of DTU, and `raw`, not evaluated."""
    folder = tmp_path_factory.mktemp("made")
    scene = write_blender(folder / "scene", counts=(2, 1, 24), height=16, width=20)
    scan = write_dtu(folder / "scan24", n=3, height=16, width=20)
    common = ["--no_batching", "--N_iters", "2", "--i_img", "0"]
    evaluated = [*common, "--i_testset", "2"]
    dtu = [*evaluated, *LOSSES, "--train_scene", "0", "--maskdir", str(scan / "mask")]
    assert run_nerf.main([*options(scene, folder, name="nerf"), *evaluated, "--white_bkgd"]) == 0
    assert run_nerf.main([*options(scene, folder, *LOSSES[:3], name="info"), *evaluated, "--white_bkgd"]) == 0
    assert run_nerf.main([*options(scan, folder, kind="dtu", name="scan"), *dtu]) == 0
    assert run_nerf.main([*options(scene, folder, name="raw"), *common, "--white_bkgd"]) == 0
    return folder


@pytest.fixture
def logs(made, tmp_path):
    """A copy of the runs, so that each test has its own."""
    return shutil.copytree(made / "logs", tmp_path / "logs")


def report(logs, *names, extra=()):
    """The page on some of the runs."""
    output = logs.parent / "report.html"
    assert main([*(str(logs / name) for name in names), "--output", str(output), *extra]) == 0
    return output.read_text()


def record_of(logs, name):
    return json.loads((logs / name / "testset_000002" / "metrics.json").read_text())


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def change_views(path, **values):
    """Other metrics of every view, and their means."""

    def update(content):
        for metrics in (*content["views"].values(), content["mean"]):
            metrics.update(values)

    change(path, update)


def test_numbers_rows_and_pictures(logs):
    change_views(logs / "info/testset_000002/metrics.json", psnr=12.345, ssim=0.0)
    page = Page(report(logs, "nerf", "info"))
    cells = page.text("td")
    records = {name: record_of(logs, name) for name in ("nerf", "info")}
    for i, record in enumerate(records.values()):
        mean = record["mean"]
        row = [f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}", "-", "2", "3", f"{record['seconds'] / 60:.1f}"]
        assert cells[6 * i : 6 * i + 6] == row
    assert page.all("article", "view") == [{"class": "view"}] * 3
    assert [slider["aria-label"].split(":")[0] for slider in page.all("input", "slider")][:2] == [
        "test/r_0, nerf", "test/r_0, info"]  # fmt: skip
    assert page.text("h4") == list(records["nerf"]["views"])
    assert len(page.all("img", "zoom")) == 3 * (1 + 2 * 3)
    captions = page.text("figcaption")
    for name, record in records.items():
        for metrics in record["views"].values():
            assert f"{name}PSNR {metrics['psnr']:.2f}SSIM {metrics['ssim']:.4f}" in captions
    assert page.text("strong")[:2] == [f"{records['nerf']['mean']['ssim']:.4f}", "12.35"]
    assert "Blender, white background, 3 test views at 20 \N{MULTIPLICATION SIGN} 16" in page.text("span")
    assert page.text("details")[1].startswith("All ")
    assert {"entropy", "entropy_ray_zvals_lambda"} <= set(page.text("th")[:20])  # the differing ones come first
    assert "colour + ray entropy" in page.text("span")


def test_means_are_those_of_the_views(logs):
    """Whatever a record says that they are, or where it does not."""
    path = logs / "nerf/testset_000002/metrics.json"
    cells = Page(report(logs, "nerf")).text("td")
    for damage in (lambda record: record.pop("mean"), lambda record: record.update(mean={"psnr": 99.0})):
        change(path, damage)
        assert Page(report(logs, "nerf")).text("td") == cells
    assert cells[0] == f"{np.mean([view['psnr'] for view in record_of(logs, 'nerf')['views'].values()]):.2f}"


def test_needs_no_network_and_says_what_pictures_show(logs):
    text = report(logs, "nerf", "info", "scan")
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
        assert tag not in ("link", "iframe", "object", "base", "form")
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all(drawing["aria-label"] for drawing in page.all("svg"))
    assert all(header["scope"] in ("col", "row", "rowgroup") for header in page.all("th"))
    identities = [given["id"] for _, given in page.elements if "id" in given]
    assert len(set(identities)) == len(identities)
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in identities}


def picture(page, alt):
    """The picture of an alt text, decoded."""
    [found] = [image for image in page.all("img") if image["alt"] == alt]
    head, data = found["src"].split(",")
    array = iio.imread(base64.b64decode(data), extension="." + head.split("/")[1].split(";")[0])
    assert (int(found["width"]), int(found["height"])) == array.shape[1::-1]
    return array[..., :3].astype(int)


def test_pictures_are_those_of_the_files(logs, made):
    page = Page(report(logs, "scan"))
    rendered = iio.imread(logs / "scan/testset_000002/000001.png").astype(int)
    truth = iio.imread(made / "scan24/image/000001.png").astype(int)
    depth = iio.imread(logs / "scan/testset_000002/000001_depth_color.png").astype(int)
    error = error_colours(np.abs(rendered - truth).mean(-1) / 255).astype(int)
    assert np.array_equal(picture(page, "000001, scan, depth"), depth)
    assert np.array_equal(picture(page, "000001, scan, error"), error)
    assert np.abs(picture(page, "000001, scan, rendering") - rendered).mean() < 5  # WebP
    brightness = [array @ [0.299, 0.587, 0.114] for array in (picture(page, "000001, ground truth"), truth)]
    assert np.abs(brightness[0] - brightness[1]).mean() < 8  # WebP blurs the colours of noise
    assert "PSNR in mask \u2191" in page.text("th")
    mean = record_of(logs, "scan")["mean"]
    assert {f"{mean['psnr_masked']:.2f}", f"{mean['ssim_masked']:.4f}"} <= set(page.text("td"))


def test_curves_are_those_of_the_events(logs):
    curves, faults = read_scalars(logs / "scan")
    assert not faults
    assert {"loss/colour_fine", "loss/entropy", "loss/smoothing", "loss/total", "psnr/fine", "test/psnr"} < set(curves)
    assert curves["test/psnr"] == [(2, pytest.approx(record_of(logs, "scan")["mean"]["psnr"], rel=1e-6))]
    assert {"loss_weighted/entropy", "learning_rate", "test/ssim_masked"} < set(curves)
    page = Page(report(logs, "nerf", "scan"))
    spots = page.text("title")
    for step, value in curves["loss/entropy"]:
        assert f"scan, step {step}: {value:.4g}" in spots
    assert len(page.all("svg")) == len(curves)
    [label] = [svg["aria-label"] for svg in page.all("svg") if svg["aria-label"].startswith("Ray entropy over")]
    assert "scan " in label and "nerf" not in label  # which has no such loss
    captions, [more] = page.text("figcaption"), [text for text in page.text("summary") if "more curves" in text]
    for title in ("Ray entropy, times its weight", "SSIM in mask of test views", "Learning rate",
                  "Entropy: unseen rays passing mask"):  # fmt: skip
        assert captions.index(title) > captions.index("Sum of the weighted losses")
    shown = [tag for tag in curves if tag == "test/psnr" or tag.startswith(("loss/", "psnr/"))]
    assert int(more.split()[0]) == len(curves) - len(shown)


def test_a_run_with_a_loss_beyond_the_paper(made, logs):
    """It is called what the loss is called, in the table and over its curve."""
    common = ["--no_batching", "--N_iters", "2", "--i_img", "0", "--white_bkgd", "--i_testset", "2"]
    command = options(made / "scene", logs.parent, *common, "--occlusion_lambda", "0.01", "--occlusion_samples", "2",
                      name="near")  # fmt: skip
    assert run_nerf.main(command) == 0
    page = Page(report(logs, "nerf", "near"))
    methods = [text for text in page.text("span") if text.startswith("colour")]
    assert methods == ["colour", "colour + occlusion"]
    [label] = [svg["aria-label"] for svg in page.all("svg") if svg["aria-label"].startswith("Occlusion over steps")]
    assert "near " in label and "nerf" not in label
    for step, value in read_scalars(logs / "near")[0]["loss/occlusion"]:
        assert f"near, step {step}: {value:.4g}" in page.text("title")
    titles = [svg["aria-label"].split(" over steps")[0] for svg in page.all("svg")][:7]
    assert sorted(titles[:-2]) == [
        "Colour loss", "Occlusion", "PSNR of test views, dB", "PSNR of training rays, dB", "Sum of the weighted losses",
    ]  # fmt: skip
    assert titles[-2:] == ["PSNR of training rays, coarse network, dB", "Colour loss, coarse network"]


def test_everything_from_files_is_escaped(logs):
    evil = "<script>alert(1)</script>&\"'"
    folder = (logs / "nerf").rename(logs / "a<b>&c")
    for path in folder.glob("testset_*/test_r_8*.png"):
        path.rename(path.with_name(path.name.replace("test_r_8", evil.replace("/", "_"))))
    record = folder / "testset_000002/metrics.json"
    change(record, lambda r: r["views"].update({evil: r["views"].pop("test/r_8")}))
    change(record, lambda r: r.update(scene=evil, lpips_missing=evil))
    text = report(logs, folder.name)
    assert text.count("<script>") == 1
    page = Page(text)
    assert evil in page.text("h1") and evil in page.text("h4")
    assert "a<b>&c" in page.text("title")[0]
    assert f"{evil}, a<b>&c, rendering" in {image["alt"] for image in page.all("img")}


def test_scenes_in_groups_and_a_run_without_evaluation(logs):
    page = Page(report(logs, "nerf", "scan", "raw"))
    assert len(page.all("tbody")) >= 2 and page.text("h3") == ["scene", "scan24"]
    assert len(page.all("article", "view")) == 3 + 2
    row = page.text("tr").index("rawcolour" + "-" * 8)
    assert row == page.text("tr").index("scan24 DTU, 2 test views at 20 \N{MULTIPLICATION SIGN} 16") - 1
    assert f"raw: not evaluated yet; to evaluate it: python evaluate.py {logs / 'raw'}" in page.text("li")
    assert any(title.startswith("raw, step 2") for title in page.text("title"))


def test_only_a_run_without_evaluation(logs):
    page = Page(report(logs, "raw"))
    assert "No test views are shown." in page.text("p") and not page.all("img", "zoom")


def test_a_newer_checkpoint_and_the_newest_evaluation(logs):
    shutil.copytree(logs / "nerf/testset_000002", logs / "nerf/testset_000001")
    (logs / "nerf/testset_000009").mkdir()  # just begun
    shutil.copy(logs / "nerf/000002.tar", logs / "nerf/000010.tar")
    page = Page(report(logs, "nerf"))
    assert "2" in page.text("td")
    assert any("its newest checkpoint, step 10, is not evaluated" in note for note in page.text("li"))


def test_data_that_moved(logs):
    args = logs / "scan/args.txt"
    args.write_text("".join(f"{line.split(' =')[0]} = /nowhere/scan24\n" if line.startswith("datadir") else line + "\n"
                            for line in args.read_text().splitlines()))  # fmt: skip
    page = Page(report(logs, "scan"))
    assert any("scan: no ground truth, no error maps" in note and "/nowhere" in note for note in page.text("li"))
    assert len(page.all("img", "zoom")) == 2 * 2
    assert not any("error" in image["alt"] or "truth" in image["alt"] for image in page.all("img", "zoom"))


def test_true_depth(logs, made, tmp_path):
    """A run whose scene has true depth by now: an old record without it first, then a new one."""
    scene = shutil.copytree(made / "scene", tmp_path / "scene")
    values = write_depth(scene)
    args = logs / "nerf/args.txt"
    args.write_text(args.read_text().replace(str(made / "scene"), str(scene)))
    old = Page(report(logs, "nerf"))
    assert not any("epth error" in text for text in old.text("th") + old.text("figcaption"))

    assert evaluate.main([str(logs / "nerf")]) == 0
    page = Page(report(logs, "nerf", "info"))
    record = record_of(logs, "nerf")
    cells, mean = page.text("td"), record["mean"]
    assert page.text("th")[4:6] == ["Depth error \u2193", "Floaters \u2193"]
    assert cells[3:5] == [f"{mean['depth_error']:.4f}", f"{mean['floaters']:.4f}"] and cells[11:13] == ["-", "-"]
    assert any("floaters: the fraction of pixels" in text for text in page.text("p"))
    captions = page.text("figcaption")
    for metrics in record["views"].values():
        shown = f"PSNR {metrics['psnr']:.2f}SSIM {metrics['ssim']:.4f}"
        assert f"nerf{shown}Depth error {metrics['depth_error']:.4f}Floaters {metrics['floaters']:.4f}" in captions
    assert [given["class"] for given in page.all("article")] == ["view deep"] * 3
    far = np.where(values["test/r_8"] > 0, np.clip((values["test/r_8"] * 0.0001 - 2) / 4, 0, 1), 1)
    assert np.array_equal(picture(page, "test/r_8, true depth"), depth_colours(far))

    (scene / "test/r_8_depth.png").write_bytes(b"cut")
    page = Page(report(logs, "nerf"))
    assert [given["class"] for given in page.all("article")] == ["view deep alone", "view alone", "view deep alone"]
    assert any("not all of its true depth can be read" in note for note in page.text("li"))


def test_no_events(logs):
    for path in logs.glob("*/events*"):
        path.unlink()
    page = Page(report(logs, "nerf"))
    assert not page.all("svg") and "No curves: the runs have no TensorBoard events." in page.text("p")
    (logs / "nerf/events.out.tfevents.1.x").write_bytes(b"damaged" * 50)
    page = Page(report(logs, "nerf"))
    assert not page.all("svg") and any("events.out.tfevents.1.x: damaged at byte 0" in note for note in page.text("li"))


def test_pictures_that_are_not_there(logs):
    folder = logs / "nerf/testset_000002"
    (folder / "test_r_0.png").unlink()
    (folder / "test_r_8_depth_color.png").write_bytes(b"cut")
    page = Page(report(logs, "nerf"))
    assert page.text("p").count("not there") == 3  # a rendering, hence its error too, and a depth
    assert len(page.all("img", "zoom")) == 12 - 3


def test_views_are_limited_evenly(logs):
    page = Page(report(logs, "nerf", "info", extra=["--views", "2"]))
    assert page.text("h4") == ["test/r_0", "test/r_16"]
    assert any("2 of 3 views; 1 left out." in text for text in page.text("p"))
    assert chosen(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert chosen(list("abc"), 1) == ["a"]
    assert chosen(list("abc"), 0) == []


def test_views_that_only_one_run_has(logs):
    change(logs / "info/testset_000002/metrics.json", lambda record: record["views"].pop("test/r_8"))
    change(logs / "info/testset_000002/metrics.json", lambda record: record.update(views_missing=1))
    change(logs / "info/testset_000002/metrics.json", lambda record: record["options"].update(render_factor=2))
    page = Page(report(logs, "nerf", "info"))
    assert page.text("p").count("not rendered") == 1
    assert any("scene: not measured on the same views" in note for note in page.text("li"))
    assert "2 of 3" in page.text("td")
    note = "info: 2 of 3 test views are measured; to go on: python evaluate.py"
    assert f"{note} {logs / 'info'} --render_factor 2" in page.text("li")


def test_loops_of_the_newest_path(logs):
    for name, level in (("path_000001", 0), ("renderonly_path_000002", 200)):
        (logs / "nerf" / name).mkdir()
        for kind in ("rgb", "depth"):
            frames = [np.full((12, 16, 3), level + i, np.uint8) for i in (0, 30)]
            write_gif(logs / "nerf" / name / f"{kind}.gif", frames)
    page = Page(report(logs, "nerf", "info"))
    [rgb, _] = [image for image in page.all("img") if "camera path" in image["alt"]]
    expected = base64.b64encode((logs / "nerf/renderonly_path_000002/rgb.gif").read_bytes()).decode()
    assert rgb["src"] == f"data:image/gif;base64,{expected}"
    assert len(page.all("source")) == 2  # still ones
    (logs / "nerf/renderonly_path_000002/depth.gif").write_bytes(b"cut")
    assert sum("camera path" in image["alt"] for image in Page(report(logs, "nerf")).all("img")) == 1


def test_swept_depths_are_shown_once_for_the_same_picture(logs):
    """And a damaged picture is left out."""
    def sweeps(*names):
        page = Page(report(logs, *names))
        return sum("what is trusted of it" in image["alt"] for image in page.all("img"))

    for name in ("nerf", "info"):
        cv2.imwrite(str(logs / name / "plane_sweep.jpg"), np.full((20, 900, 3), 90, np.uint8))
    assert sweeps("nerf", "info") == 1
    cv2.imwrite(str(logs / "info" / "plane_sweep.jpg"), np.full((20, 900, 3), 200, np.uint8))
    assert sweeps("nerf", "info") == 2
    (logs / "info" / "plane_sweep.jpg").write_bytes(b"no picture")
    assert sweeps("nerf", "info") == 1


def test_entropy_of_the_rays(logs):
    """Of the step that was evaluated, at the size of the page's pictures, in colours by hand."""
    content = torch.load(logs / "info/000002.tar", weights_only=True)
    content["network_fine_state_dict"]["alpha_linear.bias"] += 1  # something to see
    torch.save({name: part for name, part in content.items() if name != "checksum"}, logs / "info/000002.tar")
    shutil.copy(logs / "nerf/000002.tar", logs / "info/000009.tar")
    page = Page(report(logs, "info", extra=["--entropy", "--device", "cpu"]))
    assert sum("entropy" in image["alt"] for image in page.all("img", "zoom")) == 3
    assert {given["style"] for given in page.all("div", "pictures")} == {"--n: 4"}
    run = open_run(logs / "info", ckpt_render_iter=2, device="cpu")
    view = run.scene.view_names.index("test/r_8")
    with torch.no_grad():
        seen = run.renderer.rays(run.scene.cameras.at([view]).image_rays()).fine
    bits = torch.where(seen.acc > 0.1, ray_entropy(seen.alpha), 0).reshape(16, 20).numpy()
    assert bits.max() > 0
    assert np.array_equal(picture(page, "test/r_8, info, entropy"), entropy_colours(bits / np.log2(4 + 3)))
    assert any("entropy of its rays" in text for text in page.text("p"))
    assert "entropy of its rays" not in report(logs, "info")


def test_a_mesh_to_turn(logs, monkeypatch):
    """Embedded as it is, with its directions in the axes of the scene's files; a script only where there is one."""
    monkeypatch.setattr(read, "require_packages", lambda: None)
    monkeypatch.setattr(read, "page_glb", lambda renderer, scene: b"glTF" + scene.name.encode())
    folder = (logs / "nerf").rename(logs / 'a"><b>b')
    text = report(logs, folder.name, "info", extra=["--mesh", "--device", "cpu"])
    page = Page(text)
    assert text.count("<script>") == 1 and "webgl2" in text
    canvases = page.all("canvas", "mesh")
    assert [given["aria-label"] for given in canvases] == ['a"><b>b, mesh', "info, mesh"]
    assert {base64.b64decode(given["data-glb"]) for given in canvases} == {b"glTFscene"}
    scene = open_run(folder, device="cpu").scene
    up, eye = (np.array(canvases[0][name].split(), float) for name in ("data-up", "data-eye"))
    poses = scene.poses[list(scene.split.train)]
    assert up == pytest.approx(poses[:, :, 1].mean(0), rel=1e-4, abs=1e-6)
    assert eye == pytest.approx(poses[0, :, 2], rel=1e-4, abs=1e-6)
    assert "webgl2" not in report(logs, "info") and not Page(report(logs, "info")).all("canvas")


@pytest.mark.parametrize("option", ["--mesh", "--entropy"])
def test_what_cannot_be_rendered_is_a_note(logs, monkeypatch, option):
    """The page is made without."""
    (logs / "nerf/000002.tar").unlink()
    page = Page(report(logs, "nerf", extra=[option]))
    assert any("nerf: nothing is rendered for this page: " in note and "000002.tar" in note for note in page.text("li"))
    assert len(page.all("article")) == 3 and not page.all("canvas")
    if option == "--mesh":
        monkeypatch.setitem(sys.modules, "trimesh", None)
        monkeypatch.setattr(files, "PACKAGES", ("trimesh",))
        page = Page(report(logs, "info", extra=[option]))
        note = "info: no mesh: meshes need trimesh, which is not installed: pip install -r requirements-export.txt"
        assert note in page.text("li") and not page.all("canvas")


def test_a_page_of_photographs_is_small():
    """25 views of 800 x 800, noisy as photographs are, in less than 10 MB."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.random((20, 20, 3)), (800, 800), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(coarse + 0.02 * rng.standard_normal((800, 800, 3)), 0, 1)
    photograph, depth = encoded(as_uint8(noisy), side=OF_PHOTOGRAPHS), encoded(depth_colours(noisy[..., 0]), exact=True)
    error = encoded(error_colours(error_map(noisy, coarse)), exact=True)
    assert (photograph.width, depth.width) == (360, 256)
    assert 25 * 4 / 3 * sum(len(one.data) for one in (photograph, photograph, depth, depth, error, depth)) < 10e6


def bad(logs):
    """Name -> arguments that cannot be, and what the line says."""
    nerf, output = str(logs / "nerf"), ["--output", str(logs / "page.html")]
    (logs / "damaged").mkdir()
    (logs / "damaged/args.txt").write_bytes(b"\xff\xfe\x00")
    return {
        "none": (output, "required: logdir"),
        "no folder": ([str(logs / "none"), *output], "found no args.txt"),
        "no run": ([nerf, str(logs), *output], "found no args.txt"),
        "damaged": ([str(logs / "damaged"), *output], "args.txt"),
        "twice": ([nerf, str(logs / "info/../nerf"), *output], "this run is named twice"),
        "output folder": ([nerf, "--output", str(logs / "none/page.html")], "expected it to exist"),
        "output is a folder": ([nerf, "--output", str(logs)], "found a folder"),
        "output in a file": ([nerf, "--output", f"{nerf}/args.txt/page.html"], "found no folder"),
        "views": ([nerf, "--views", "-1", *output], "--views: found '-1', expected an integer >= 0"),
        "views text": ([nerf, "--views", "all", *output], "--views: found 'all'"),
        "option": ([nerf, "--what", *output], "unrecognized arguments: --what"),
    }


BAD = (
    "none", "no folder", "no run", "damaged", "twice", "output folder", "output is a folder", "output in a file",
    "views", "views text", "option",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_status_2_and_nothing_written(logs, capsys, monkeypatch, name):
    monkeypatch.chdir(logs)
    cases = bad(logs)
    assert set(BAD) == set(cases)
    arguments, expected = cases[name]
    before = sorted(logs.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("report.py: error: ") and error.count("\n") == 1
    assert expected in error
    assert sorted(logs.rglob("*")) == before


@pytest.mark.parametrize("damage", [
    b"[" * 100_000, b"[1, 2", {"step": float("inf")}, {"seconds": 10**400}, {"views": {"v": {"mse": 10**400}}},
    {"views": {"v": {"mse": []}}}, {"views": {"v": {"mse": "0.1"}}}, {"views": {"v": {"psnr": 9.0}}},
    {"render_size": [0, 8]}, {"render_size": [10, -1]}, {"render_size": "ab"}, {"views": 3}, {"options": 3},
], ids=lambda value: str(value)[:30])  # fmt: skip
def test_a_damaged_record_is_a_note(logs, damage):
    """And the other run's pictures are shown."""
    path = logs / "info/testset_000002/metrics.json"
    damaged = damage if isinstance(damage, bytes) else json.dumps(json.loads(path.read_text()) | damage).encode()
    path.write_bytes(damaged)
    page = Page(report(logs, "nerf", "info"))
    [note] = [note for note in page.text("li") if "metrics.json" in note]
    assert note.startswith(f"info: {path}: found no record of an evaluation") and len(page.all("article")) == 3


def test_an_odd_record_makes_a_page(logs):
    """A name that is no text, and pictures of another size than the photographs have: more than the memory holds."""
    path = logs / "info/testset_000002/metrics.json"
    change(path, lambda record: record["views"].update({"\ud800": record["views"]["test/r_0"]}))
    assert "test/r_0" in report(logs, "info")
    change(path, lambda record: record.update(render_size=[10**6, 10**6]))
    assert "test/r_0" in report(logs, "info")


def test_error_map_by_hand():
    image = np.array([[[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]]])
    truth = np.array([[[0.3, 0.5, 0.4], [0.2, 0.2, 0.2]]])
    assert error_map(image, truth) == pytest.approx(np.array([[0.3, 0.0]]))
    brightness = error_colours(np.array([[0.0, 0.25, 0.5, 0.9]])).astype(int).sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]


def test_pictures_are_small():
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    picture = encoded(noise)
    assert (picture.width, picture.height) == (256, 192)
    assert encoded(noise, exact=True).data == picture.data  # too large to be kept exactly
    assert encoded(np.zeros((9, 900, 3), np.uint8)).height == 3


def test_labels_are_the_shortest_that_differ(tmp_path):
    paths = [tmp_path / "infonerf/lego", tmp_path / "nerf/lego"]
    assert labels_of(paths) == ["infonerf/lego", "nerf/lego"]
    assert labels_of([tmp_path / "a/x", tmp_path / "a/y"]) == ["x", "y"]


def test_long_curves_are_thinned_by_means():
    assert thinned([(i, float(i)) for i in range(1, 8)], 3) == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert thinned([(1, 5.0)], 3) == [(1, 5.0)]


def test_axes():
    assert linear_ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(3.0, 3.0) == [3.0]
    assert Axis(0.01, 1.0, 100, 0, log=True)(0.1) == 50
    assert Axis(0.01, 1.0, 100, 0, log=True).ticks() == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert len(Axis(1e-12, 1e12, 100, 0, log=True).ticks()) <= 6
    assert Axis(5.0, 5.0, 0, 100)(5.0) == 50


def test_best_is_by_the_digits_shown():
    assert best("psnr", [20.001, 20.004, 19.0, None]) == {0, 1}
    assert best("lpips", [0.3, 0.2]) == {1}
    assert best("psnr", [20.0, None]) == best("psnr", [20.0, 20.0]) == set()


def test_elements_escape():
    assert element("td", "<b>&", class_='"x"', title=None) == '<td class="&quot;x&quot;">&lt;b&gt;&amp;</td>'
