"""evaluate.py: records, images, going on after a stop, and the command line."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_nerf
import run_nerf_helpers
from evaluate import main
from infonerf.command_line import run_config
from infonerf.evaluation.metrics import means, psnr
from infonerf.evaluation.record import Record, records_table
from infonerf.rendering.pictures import depth_colours, unit_depth, write_gif, write_mp4
from infonerf.rendering.renderer import Image, Renderer
from support.runs import options
from support.scenes import HEIGHT, WIDTH, write_blender, write_depth

SAMPLE = Path(__file__).parents[1] / "data" / "sample"

# imageio's reader of videos leaves its pipe to the garbage collector.
LEAKY_FFMPEG = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def record_of(logdir, step=2, kind="testset"):
    return json.loads((logdir / f"{kind}_{step:06d}" / "metrics.json").read_text())


def results(basedir):
    with (basedir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def rendered(trained, monkeypatch):
    """The views of the run's scene that are rendered from here on, by number."""
    poses = run_nerf_helpers.load_scene(run_config(trained / "logs/run").data).cameras.poses.float()
    real, views = Renderer.image, []

    def image(self, cameras, *progress):
        [view] = (poses == cameras.poses[0]).flatten(1).all(1).nonzero().flatten().tolist()
        views.append(view)
        return real(self, cameras, *progress)

    monkeypatch.setattr(Renderer, "image", image)
    return views


def test_record_images_and_results(logdir, trained, capsys):
    before = {path.name: path.read_bytes() for path in logdir.iterdir() if path.is_file()}
    assert main([str(logdir)]) == 0
    assert {path.name: path.read_bytes() for path in logdir.iterdir() if path.is_file()} == before
    record, folder = record_of(logdir), logdir / "testset_000002"
    assert list(record["views"]) == ["000001", "000002", "000004", "000005"]
    assert (record["step"], record["scene"], record["device"], record["kind"]) == (2, "scan", "cpu", "testset")
    assert record["options"]["N_samples"] == 4
    assert record["views"]["000001"]["lpips"] is None
    assert record["lpips_missing"]
    assert record["views_missing"] == 0
    assert not {"depth_error", "floaters"} & {*record["views"]["000001"], *record["mean"]}  # DTU has no true depth
    assert record["seconds"] > 0
    for name in ("psnr", "ssim", "psnr_masked", "ssim_masked"):
        values = [metrics[name] for metrics in record["views"].values()]
        assert record["mean"][name] == pytest.approx(np.mean(values))
    pooled = -10 * np.log10(np.mean([metrics["mse"] for metrics in record["views"].values()]))
    assert record["mean"]["psnr_pooled"] == pytest.approx(pooled)

    rendered, truth = (iio.imread(path) / 255 for path in (folder / "000001.png", trained / "scan/image/000001.png"))
    assert psnr(rendered, truth) == pytest.approx(record["views"]["000001"]["psnr"], abs=0.05)  # but for 8 bits
    depth = iio.imread(folder / "000001_depth.png")
    assert (depth.dtype, depth.shape) == (np.uint16, (16, 20))
    assert record["depth_png"] == {"0": 0.1, "65535": 5.0, "empty": "far"}
    colours = iio.imread(folder / "000001_depth_color.png").astype(int)
    assert np.abs(colours - depth_colours(depth / 65535)).max() <= 6  # the 16-bit file is rounded

    [row] = results(logdir.parent)
    assert (row["expname"], row["step"], row["views"]) == ("run", "2", "4")
    assert float(row["psnr"]) == pytest.approx(record["mean"]["psnr"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["run", "step", "views", "psnr", "psnr_pooled", "ssim", "psnr_masked", "ssim_masked"]
    assert lines[-1].split()[1:4] == ["2", "4", f"{record['mean']['psnr']:.2f}"]


def test_evaluation_goes_on_where_it_stopped(logdir, rendered, monkeypatch):
    image = Renderer.image

    def interrupted(*args):
        if len(rendered) == 2:
            raise KeyboardInterrupt
        return image(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Renderer, "image", interrupted)
        assert main([str(logdir)]) == 130
    assert list(record_of(logdir)["views"]) == ["000001", "000002"]
    assert record_of(logdir)["views_missing"] == 2
    assert not (logdir.parent / "results.csv").exists()

    rendered.clear()
    assert main([str(logdir)]) == 0
    assert rendered == [4, 5]
    assert len(record_of(logdir)["views"]) == 4
    assert record_of(logdir)["views_missing"] == 0

    rendered.clear()
    assert main([str(logdir)]) == 0
    assert rendered == []
    assert len((logdir.parent / "results.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("change", ["weights", "factor", "image", "damaged"])
def test_a_record_of_something_else_is_not_continued(logdir, rendered, change):
    assert main([str(logdir)]) == 0
    rendered.clear()
    extra = []
    if change == "weights":
        content = torch.load(logdir / "000002.tar", weights_only=True)
        content["network_fine_state_dict"]["rgb_linear.bias"] += 0.1
        torch.save(content, logdir / "000002.tar")
    elif change == "factor":
        extra = ["--render_factor", "2"]
    elif change == "image":
        (logdir / "testset_000002" / "000002.png").unlink()
    else:
        (logdir / "testset_000002" / "metrics.json").write_text("{")
    assert main([str(logdir), *extra]) == 0
    assert rendered == [1, 2, 4, 5]


def test_a_record_of_something_else_is_kept(logdir, capsys):
    """A smaller evaluation, by options that do not show in the folder's name, does not cost the finished one."""
    assert main([str(logdir)]) == 0
    folder, finished = logdir / "testset_000002", record_of(logdir)
    command = ["--config", str(logdir / "args.txt"), "--basedir", str(logdir.parent), "--eval_only"]
    for number, views in ((1, ["1"]), (2, ["2"])):
        before = record_of(logdir)
        assert run_nerf.main([*command, "--test_scene", *views]) == 0
        assert json.loads((folder / f"metrics_{number}.json").read_text()) == before
        assert f"the metrics of another evaluation are now in {folder}/metrics_{number}.json" in capsys.readouterr().out
    assert json.loads((folder / "metrics_1.json").read_text()) == finished
    assert len(finished["views"]) == 4
    assert list(record_of(logdir)["views"]) == ["000002"]


def test_automatic_precision_is_recorded_as_what_it_is(logdir, monkeypatch):
    """Views of a machine with bfloat16 do not go on with views of one without."""
    command = ["--config", str(logdir / "args.txt"), "--basedir", str(logdir.parent), "--eval_only"]
    for has, expected in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(run_nerf_helpers, "has_bfloat16", lambda device, has=has: has)
        assert run_nerf.main([*command, "--precision", "auto"]) == 0
        assert record_of(logdir)["options"]["precision"] == expected


def test_one_code_path_for_training_and_the_script(logdir, trained, tmp_path):
    assert main([str(logdir)]) == 0
    scan = trained / "scan"
    extra = ["--no_batching", "--train_scene", "0", "3", "--maskdir", str(scan / "mask"), "--N_iters", "2"]
    command = options(scan, tmp_path, *extra, kind="dtu", name="again")
    assert run_nerf.main([*command, "--i_testset", "2"]) == 0
    assert run_nerf.main([*command, "--eval_only"]) == 0  # nothing is rendered again
    again = record_of(tmp_path / "logs/again")
    assert again["views"] == record_of(logdir)["views"]
    rows = results(tmp_path / "logs")
    assert [row["expname"] for row in rows] == ["run", "again"]


def depth_by_hand(folder, name, factor, pixel_center):
    """depth_error and floaters of a view of the sample scene from the files alone, by a loop."""
    stored = iio.imread(folder / f"{name.replace('/', '_')}_depth.png")  # 0..65535 is 2..6, empty is 6
    true = iio.imread(SAMPLE / f"{name}_depth.png")
    total, count = 0.0, 0
    for row in range(100 // factor):
        for col in range(100 // factor):
            rendered = 2 + 4 * int(stored[row, col]) / 65535
            middle = factor // 2 if pixel_center else 0  # of the pixels that make one
            surface = int(true[factor * row + middle, factor * col + middle]) * 8 / 65535 or 6.0
            total += abs(rendered - surface)
            count += surface - rendered > 0.2
    n = (100 // factor) ** 2
    return {"depth_error": pytest.approx(total / n, abs=1e-4), "floaters": pytest.approx(count / n, abs=2 / n)}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Runs of one step on the sample scene, with rays through the centres and the corners of pixels."""
    folder = tmp_path_factory.mktemp("sample")
    for name, center in (("run", "0.5"), ("corner", "0")):
        extra = ["--no_batching", "--N_iters", "1", "--testskip", "10", "--white_bkgd", "--pixel_center", center]
        assert run_nerf.main(options(SAMPLE, folder, *extra, "--chunk", "4096", name=name)) == 0
    return folder / "logs"


@pytest.mark.parametrize(("name", "factor"), [("run", 1), ("run", 5), ("run", 4), ("corner", 1), ("corner", 4)])
def test_depth_against_the_true_one(sample, tmp_path, capsys, name, factor):
    logdir = shutil.copytree(sample / name, tmp_path / name)
    assert main([str(logdir), "--render_factor", str(factor)]) == 0
    folder = logdir / ("testset_000001" + f"_factor{factor}" * (factor > 1))
    record = json.loads((folder / "metrics.json").read_text())
    assert list(record["views"]) == ["test/r_0", "test/r_10", "test/r_20"]
    for view, metrics in record["views"].items():
        expected = depth_by_hand(folder, view, factor, record["options"]["pixel_center"])
        assert {metric: metrics[metric] for metric in expected} == expected
    for metric in ("depth_error", "floaters"):
        assert record["mean"][metric] == pytest.approx(np.mean([v[metric] for v in record["views"].values()]))
    [row] = results(tmp_path)
    assert float(row["depth_error"]) == pytest.approx(record["mean"]["depth_error"])
    head, line = capsys.readouterr().out.splitlines()[-2:]
    assert head.split()[-2:] == ["depth_error", "floaters"]
    assert line.split()[-2:] == [f"{record['mean'][metric]:.4f}" for metric in ("depth_error", "floaters")]


def test_a_record_from_before_there_was_depth_is_begun_anew(sample, tmp_path):
    logdir = shutil.copytree(sample / "run", tmp_path / "run")
    assert main([str(logdir), "--render_factor", "10"]) == 0
    path = logdir / "testset_000001_factor10/metrics.json"
    record, old = json.loads(path.read_text()), json.loads(path.read_text())
    del old["true_depth"], old["views_missing"]
    for metrics in (old["mean"], *old["views"].values()):
        del metrics["depth_error"], metrics["floaters"]
    path.write_text(json.dumps(old))
    assert main([str(logdir), "--render_factor", "10"]) == 0
    again = json.loads(path.read_text())
    assert again["views"] == record["views"] and again["mean"] == record["mean"]


def test_views_without_true_depth_of_a_scene_that_has_it(tmp_path):
    scene = write_blender(tmp_path / "scene", counts=(2, 1, 1))
    write_depth(scene)
    command = options(scene, tmp_path, "--no_batching", "--N_iters", "1")
    assert run_nerf.main(command) == 0
    assert run_nerf.main([*command, "--render_only", "--render_train", "--render_test"]) == 0
    train, test = (record_of(tmp_path / "logs/run", 1, f"renderonly_{split}") for split in ("train", "test"))
    assert [metrics["floaters"] for metrics in train["views"].values()] == [None, None]
    assert train["mean"]["depth_error"] is None and train["mean"]["psnr"] > 0
    assert test["mean"]["depth_error"] > 0


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_results_of_an_earlier_version_get_the_new_columns(logdir, end):
    """Its lines stay as they are; columns of its own are kept, wherever they are."""
    path = logdir.parent / "results.csv"
    path.write_bytes(f"time,note,psnr{end}then,\u00e9,17.5{end}".encode())
    assert main([str(logdir)]) == 0
    old, new = results(logdir.parent)
    assert (old["time"], old["note"], old["psnr"], old["depth_error"]) == ("then", "\u00e9", "17.5", None)
    assert (new["note"], new["expname"], new["depth_error"]) == ("", "run", "")
    assert float(new["psnr"]) == pytest.approx(record_of(logdir)["mean"]["psnr"])
    assert path.read_bytes().splitlines()[1] == "then,\u00e9,17.5".encode()
    (logdir / "testset_000002/metrics.json").unlink()
    assert main([str(logdir)]) == 0
    assert path.read_bytes().count(b"time,") == 1 and len(results(logdir.parent)) == 3


def test_another_step_and_several_runs_make_one_table(logdir, capsys):
    assert main([str(logdir), "--step", "1"]) == 0
    assert record_of(logdir, 1)["step"] == 1
    capsys.readouterr()
    assert main([str(logdir), str(logdir) + "/."]) == 0
    assert len(capsys.readouterr().out.splitlines()[-3:]) == 3


def test_a_run_that_was_moved(logdir, trained, tmp_path):
    moved = logdir.rename(tmp_path / "elsewhere")
    assert main([str(moved)]) == 0
    assert record_of(moved)["step"] == 2
    assert (tmp_path / "results.csv").is_file()


def test_a_run_that_lies_here_or_behind_a_link(logdir, tmp_path, monkeypatch):
    moved = logdir.rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(moved)
    for here, given in ((moved, "."), (tmp_path, "link"), (moved / "testset_000002", "..")):
        monkeypatch.chdir(here)
        assert main([given]) == 0
    assert record_of(moved)["step"] == 2
    assert len(results(tmp_path)) == 1


def test_a_moved_run_of_a_nested_name(logdir, tmp_path):
    text = re.sub("(?m)^basedir = .*", f"basedir = {tmp_path}/logs", (logdir / "args.txt").read_text())
    (logdir / "args.txt").write_text(text.replace("expname = run", "expname = synthetic/infonerf/run"))
    nested = tmp_path / "logs/synthetic/infonerf/run"
    shutil.copytree(logdir, nested)
    assert main([str(nested)]) == 0
    shutil.move(nested, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere/testset_000002")
    assert main([str(tmp_path / "elsewhere")]) == 0
    tables = results(tmp_path / "logs"), results(tmp_path)
    assert [[row["expname"] for row in table] for table in tables] == [["synthetic/infonerf/run"], ["elsewhere"]]


def test_a_name_that_leads_out_of_basedir_is_refused(logdir, tmp_path, capsys):
    text = (logdir / "args.txt").read_text()
    (logdir / "args.txt").write_text(text.replace("expname = run", "expname = ../../run"))
    assert main([str(logdir)]) == 2
    error = capsys.readouterr().err
    assert "--expname: found '../../run', expected a folder within basedir" in error and error.count("\n") == 1


@pytest.mark.parametrize("damage", [
    lambda record: b"[" * 100_000,
    lambda record: b"\xff",
    lambda record: record | {"views": {name: {"mse": "0.1"} for name in record["views"]}},
    lambda record: record | {"views": dict.fromkeys(record["views"], 5)},
    lambda record: record | {"views": {name: {} for name in record["views"]}},
    lambda record: record | {"views": {name: {"mse": []} for name in record["views"]}},
    lambda record: record | {"seconds": "long"},
    lambda record: {name: value for name, value in record.items() if name != "seconds"},
    lambda record: record | {"views_missing": "many"},
    lambda record: record | {"mean": None},
])  # fmt: skip
def test_a_damaged_record_is_made_again(logdir, damage):
    assert main([str(logdir)]) == 0
    path, record = logdir / "testset_000002/metrics.json", record_of(logdir)
    damaged = damage(record)
    path.write_bytes(damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode())
    assert main([str(logdir)]) == 0
    again = record_of(logdir)
    for name in ("views", "mean"):
        assert again[name] == record[name]


def test_results_that_are_no_table(logdir, capsys):
    (logdir.parent / "results.csv").write_bytes(b"x" * 200_000)
    assert main([str(logdir)]) == 2
    assert "results.csv: cannot be added to (field larger than field limit" in capsys.readouterr().err


def test_data_that_moved(logdir, trained, tmp_path, capsys):
    moved = shutil.copytree(trained / "scan", tmp_path / "moved")
    text = (logdir / "args.txt").read_text().replace(str(trained / "scan"), "/nowhere/scan")
    (logdir / "args.txt").write_text(text.replace("maskdir = ", "# maskdir = "))
    assert main([str(logdir)]) == 2
    assert "--datadir /nowhere/scan" in capsys.readouterr().err
    assert main([str(logdir), "--datadir", str(moved)]) == 0


@pytest.mark.parametrize(("make", "expected"), [
    (lambda logdir: [str(logdir / "none")], "found no args.txt"),
    (lambda logdir: [str(logdir.parent)], "found no args.txt"),
    (lambda logdir: [], "required: logdir"),
    (lambda logdir: [str(logdir), "--step", "7"], r"000007.tar: no such checkpoint"),
    (lambda logdir: [str(logdir), "--device", "tpu"], "device tpu"),
    (lambda logdir: [str(logdir), "--step", "0"], "argument --step: found '0', expected an integer >= 1"),
    (lambda logdir: [str(logdir), "--render_factor", "-1"], "render_factor: found '-1', expected an integer >= 0"),
    (lambda logdir: [str(logdir), "--what"], "unrecognized arguments: --what"),
])  # fmt: skip
def test_bad_input(logdir, capsys, make, expected):
    assert main(make(logdir)) == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate.py: error: ")
    assert error.count("\n") == 1
    assert expected in error


def test_a_run_without_checkpoint(logdir, capsys):
    for path in logdir.glob("*.tar"):
        path.unlink()
    assert main([str(logdir)]) == 2
    assert "found no checkpoint to render" in capsys.readouterr().err


def test_means_leave_out_what_has_no_value():
    views = {"a": {"mse": 0.01, "lpips": None, "ssim": 0.5}, "b": {"mse": 0.03, "lpips": None, "ssim": None}}
    assert set(means(views | {"c": {"mse": None, "lpips": None, "ssim": None}}).values()) == {None}
    assert means(views) == {"mse": pytest.approx(0.02), "lpips": None, "ssim": 0.5,
                            "psnr_pooled": pytest.approx(-10 * np.log10(0.02))}
    some = {"a": {"mse": 0.01}, "b": {"mse": 0.01, "floaters": 0.5}, "c": {"mse": 0.01}}  # masks or depth came later
    assert means(some)["floaters"] == 0.5


def test_depth_colours_are_bright_near_and_dark_far():
    colours = depth_colours(np.array([[0.0, 0.5, 1.0]]))
    brightness = colours.astype(int).sum(-1)[0]
    assert brightness[0] > brightness[1] > brightness[2]


def test_depth_of_empty_rays_counts_as_far():
    depth, acc = torch.tensor([[0.0, 3.0, 1.5]]), torch.tensor([[0.0, 1.0, 0.5]])
    image = Image(rgb=torch.zeros(1, 3, 3), depth=depth, acc=acc)
    np.testing.assert_allclose(unit_depth(image, near=2.0, far=6.0), [[1.0, 0.25, 0.625]])


def test_table_shows_only_metrics_that_a_run_has():
    record = Record(step=5, kind="testset", options={}, scene="s", render_size=(8, 8), weights="w", depth_png={})
    record.views = {"a": {"mse": 0.0, "psnr": 20.0, "ssim": None, "lpips": None}}
    assert records_table({"x": record}).split() == ["run", "step", "views", "psnr", "x", "5", "1", "20.00"]
    stopped = replace(record, views={"a": {"mse": 0.0, "floaters": 0.25}}, views_missing=24)
    assert records_table({"x": stopped}).splitlines()[1].split() == ["x", "5", "1", "of", "25", "0.2500"]


def test_blender_views_are_named_by_split_and_view(tmp_path):
    scene = write_blender(tmp_path / "scene")
    assert run_nerf.main([*options(scene, tmp_path, "--no_batching", "--N_iters", "1"), "--i_testset", "1"]) == 0
    names = {path.name for path in (tmp_path / "logs/run/testset_000001").glob("*.png")}
    assert {"test_r_0.png", "test_r_8_depth.png"} < names
    assert iio.imread(tmp_path / "logs/run/testset_000001/test_r_0.png").shape == (HEIGHT, WIDTH, 3)


@LEAKY_FFMPEG
def test_path_video_and_training_time_pictures(tmp_path):
    scene = write_blender(tmp_path / "scene", height=9, width=11)
    command = options(scene, tmp_path, "--no_batching", "--N_iters", "2", "--i_img", "1", "--i_video", "2")
    assert run_nerf.main(command) == 0
    folder = tmp_path / "logs/run/path_000002"
    assert {path.name for path in folder.iterdir()} == {"rgb.mp4", "depth.mp4", "rgb.gif", "depth.gif"}
    assert iio.imread(folder / "rgb.mp4", plugin="FFMPEG").shape == (40, 8, 10, 3)  # the codec wants even sizes
    assert iio.imread(folder / "depth.gif").shape[1:] == (9, 11, 3)  # equal frames are merged
    assert run_nerf.main([*command, "--render_only", "--render_mypath"]) == 0
    assert (tmp_path / "logs/run/renderonly_path_000002/rgb.mp4").is_file()
    assert not (tmp_path / "logs/run/renderonly_test_000002").exists()

    events = EventAccumulator(str(tmp_path / "logs/run"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"validation/rgb", "validation/depth", "validation/acc"}
    shown = events.Images("validation/rgb")
    assert [image.step for image in shown] == [1, 2]
    assert (shown[0].height, shown[0].width) == (9, 11)


@LEAKY_FFMPEG
def test_videos_keep_their_frames(tmp_path):
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    for i in range(6):
        frames[i, :, 8 * i : 8 * i + 8] = (250, 40 * i, 10)
    write_mp4(tmp_path / "a.mp4", frames)
    found = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG").astype(int)
    assert found.shape == frames.shape
    assert np.abs(found - frames).mean() < 12
    write_gif(tmp_path / "a.gif", [np.repeat(np.repeat(frame, 10, 0), 10, 1) for frame in frames])
    small = iio.imread(tmp_path / "a.gif")
    assert small.shape == (6, 133, 200, 3)
    assert iio.immeta(tmp_path / "a.gif")["loop"] == 0


def test_validation_views_have_their_own_record(tmp_path, capsys):
    scene = write_blender(tmp_path / "scene")
    assert run_nerf.main(options(scene, tmp_path, "--no_batching", "--N_iters", "2", "--testskip", "4")) == 0
    logdir = tmp_path / "logs/run"
    assert main([str(logdir), "--split", "val"]) == 0
    assert list(record_of(logdir, kind="valset")["views"]) == ["val/r_0", "val/r_4"]
    assert [row["kind"] for row in results(tmp_path / "logs")] == ["valset"]
    assert not (logdir / "testset_000002").exists()
    assert main([str(logdir)]) == 0
    assert len(record_of(logdir)["views"]) == 4


def test_a_scene_without_validation_views(logdir, capsys, monkeypatch):
    whole = run_nerf_helpers.load_scene

    def without_val(data):
        scene = whole(data)
        return replace(scene, split=replace(scene.split, val=()))

    monkeypatch.setattr(run_nerf_helpers, "load_scene", without_val)
    assert main([str(logdir), "--split", "val"]) == 2
    assert capsys.readouterr().err == "evaluate.py: error: --split val: scene scan has no such views, expected some\n"
