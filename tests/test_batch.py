"""train.sh and infonerf/batch.py: which configs run, in which order, on which GPU, and what is said of each."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import run_nerf
from infonerf.batch import main
from support.scenes import write_blender

ROOT = Path(__file__).parent.parent
TINY = (
    "dataset_type = blender\nno_batching = True\nnetdepth = 2\nnetwidth = 8\nN_rand = 6\nN_samples = 4\n"
    "device = cpu\ni_print = 1\ni_testset = 0\ni_img = 0\ni_video = 0\n"
)
# A stand-in for run_nerf.py. What it does depends on the last component of expname.
FAKE = '''
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
from infonerf.command_line import parse_options

config, _ = parse_options(sys.argv[1:])
folder = config.run.folder
name, marks = folder.name, Path(config.run.basedir) / "marks"
marks.mkdir(exist_ok=True)

def save(step):
    (folder / f"{step:06d}.tar").touch()

def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)

print(name, "device", config.run.device, os.environ.get("CUDA_DEVICE_ORDER"))
print(name, "out", os.environ.get("CUDA_VISIBLE_DEVICES"))
print(name, "first\\rsecond\\r\\n\\x1b[A", end="", file=sys.stderr)
received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: received.append(number))
with open(marks / "order", "a") as file:
    file.write(name + "\\n")
(marks / f"{name}.started").touch()
if config.saving.wandb_group:  # "NAME waits for OTHER"
    for words in config.saving.wandb_group.split(","):
        if words.split()[0] == name:
            wait_for(marks / f"{words.split()[-1]}.started")
if name.startswith("fail"):
    sys.exit(3)
if name.startswith("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if name.startswith("stop"):
    os.kill(os.getppid(), getattr(signal, name.split("_")[1]))
if name.startswith(("stop", "wait")):
    end = time.monotonic() + 30
    while not received and time.monotonic() < end:
        time.sleep(0.01)
    save(7)
    print(name, "saved", *received)
    sys.exit(128 + received[0])
save(config.stopping.N_iters)
print("no newline", end="")
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The command of the stand-in; nothing but it may be run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "outer")
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return [sys.executable, str(path)]


def write_configs(folder, *names, basedir=None, text=""):
    """Configs NAME.txt with expname = NAME; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        where = f"expname = {name}\nbasedir = {basedir or folder.parent / 'logs'}\ndatadir = d\n"
        (folder / f"{name}.txt").write_text(f"{where}dataset_type = blender\nN_iters = 20\n{text}")
    return folder


def save(tmp_path, name, step):
    folder = tmp_path / "logs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{step:06d}.tar").touch()
    return folder


def record(psnr, step=20, **changed):
    """The text of the metrics.json of an evaluation of one view; `changed` takes the place of its entries."""
    entries = {"step": step, "kind": "testset", "options": {}, "scene": "scene", "render_size": [10, 8],
               "weights": "0", "depth_png": {}, "seconds": 1.0, "views": {"r_0": {"mse": 0.01, "psnr": psnr}}}
    return json.dumps(entries | changed)


def write_metrics(folder, step, text):
    (folder / f"testset_{step:06d}").mkdir()
    if text is not None:
        (folder / f"testset_{step:06d}" / "metrics.json").write_text(text)


def table(text):
    """name of a config -> its other cells."""
    lines = text[text.rindex("config  ") :].splitlines()
    assert lines[0].split() == ["config", "state", "steps", "PSNR", "minutes"]
    cells = [re.split(r"\s{2,}", line) for line in lines[1:] if line]
    return {Path(row[0]).stem: row[1:] for row in cells}


def order(tmp_path):
    return (tmp_path / "logs/marks/order").read_text().split()


def test_every_config_of_a_folder_runs_by_name_and_a_failure_stops_no_other(tmp_path, capfd, fake):
    folder = write_configs(tmp_path / "configs", "b", "fails", "a", "killed", "z")
    (folder / "notes.md").write_text("no config")
    (folder / ".a.txt").write_text("no config")
    (folder / "sub.txt").mkdir()
    assert main([str(folder)], fake) == 1
    text = capfd.readouterr().out
    assert order(tmp_path) == ["a", "b", "fails", "killed", "z"]
    states = {name: cells[:3] for name, cells in table(text).items()}
    assert states == {
        "a": ["done", "20 of 20", "-"],
        "b": ["done", "20 of 20", "-"],
        "fails": ["failed (3)", "0 of 20", "-"],
        "killed": ["failed (137)", "0 of 20", "-"],
        "z": ["done", "20 of 20", "-"],
    }
    assert all(re.fullmatch(r"\d+\.\d", cells[3]) for cells in table(text).values())
    assert "a out outer\na first\rsecond\r\n\x1b[Ano newline" in text  # as it came


def test_logs_are_appended_to(tmp_path, fake):
    folder = write_configs(tmp_path / "configs", "fails")
    for _ in range(2):
        assert main([str(folder / "fails.txt"), "--", "--seed", "3"], fake) == 1
    lines = (tmp_path / "logs/fails/train.log").read_text().splitlines()
    assert [lines.count(line) for line in ("fails out outer", "fails first", "second")] == [2, 2, 2]
    assert len([line for line in lines if line.endswith(f"--config {folder / 'fails.txt'} --seed 3")]) == 2


def test_finished_runs_are_skipped_and_the_others_go_on(tmp_path, capsys, fake):
    folder = write_configs(tmp_path / "configs", "begun", "new", "over", "reached")
    for name, step in (("begun", 19), ("reached", 7), ("reached", 20), ("over", 1_000_000)):
        save(tmp_path, name, step)
    assert main([str(folder)], fake) == 0
    assert order(tmp_path) == ["begun", "new"]
    rows = table(capsys.readouterr().out)
    assert rows["reached"] == ["skipped", "20 of 20", "-", "-"]
    assert rows["over"] == ["skipped", "1000000 of 20", "-", "-"]
    assert rows["begun"][:2] == ["done", "20 of 20"]
    assert main([str(folder)], fake) == 0
    assert order(tmp_path) == ["begun", "new"]
    assert main([str(folder / "new.txt"), "--", "--N_iters=21"], fake) == 0  # more is wanted now
    for option in ("--no_reload", "--eval_only", "--render_only"):  # something else than to go on
        assert main([str(folder / "reached.txt"), "--", option], fake) == 0
    assert order(tmp_path) == ["begun", "new", "new", *["reached"] * 3]


@pytest.mark.parametrize(("evaluations", "shown"), [
    ({10: 21.0, 20: 25.678}, "25.68"),
    ({9: 21.0, 10: 22.0}, "22.00"),
    ({10: 21.0, 30: 29.0}, "21.00"),  # a later one was of a run that has been started over
    ({}, "-"),
    ({10: 21.0, 20: None}, "-"),
    ({20: '{"mean": {"psnr": 2'}, "-"),
    ({20: '{"mean": {"psnr": 25.0}}'}, "-"),  # no record: of which views?
    ({20: record(None)}, "-"),
    ({20: record(math.nan)}, "-"),
    ({20: record(25.0, views={"r_0": {"mse": 0.01}})}, "-"),
    ({20: record(25.0, views={})}, "-"),
    ({20: record(25.0, views_missing=0)}, "25.00"),
    ({20: record(25.0, views_missing=13)}, "-"),
    ({20: record(25.0, views=[])}, "-"),
    ({20: record(25.0, views={"r_0": []})}, "-"),
    ({20: "[]"}, "-"),
], ids=str)  # fmt: skip
def test_the_psnr_of_the_newest_evaluation(tmp_path, capsys, fake, evaluations, shown):
    folder = write_configs(tmp_path / "configs", "a")
    run = save(tmp_path, "a", 20)
    (run / "testset_old").mkdir()
    for step, value in evaluations.items():
        write_metrics(run, step, record(value, step) if isinstance(value, float) else value)
    assert main([str(folder)], fake) == 0
    assert table(capsys.readouterr().out)["a"] == ["skipped", "20 of 20", shown, "-"]


def test_means_over_scenes_and_within_masks(tmp_path, capsys, fake):
    folder = write_configs(tmp_path / "configs", "a", "b")
    for name, psnr, masked in (("a", 20.0, 22.0), ("b", 25.0, 26.5)):
        views = {"r_0": {"mse": 0.01, "psnr": psnr, "psnr_masked": masked}}
        write_metrics(save(tmp_path, name, 20), 20, record(None, views=views))
    assert main([str(folder)], fake) == 0
    text = capsys.readouterr().out
    assert "in mask" in text
    assert "mean of" not in text  # of one scene
    with (folder / "b.txt").open("a") as file:
        file.write("datadir = other\n")
    assert main([str(folder)], fake) == 0
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines() if line]
    assert lines[-4:] == [
        ["config", "state", "steps", "PSNR", "in mask", "minutes"],
        [str(folder / "a.txt"), "skipped", "20 of 20", "20.00", "22.00", "-"],
        [str(folder / "b.txt"), "skipped", "20 of 20", "25.00", "26.50", "-"],
        ["mean of 2", "22.50", "24.25"],
    ]


def test_a_free_gpu_takes_the_next_config_and_lines_are_prefixed(tmp_path, capfd, fake):
    """a and b run at a time; c runs when b has ended, while a still runs."""
    folder = write_configs(tmp_path / "configs", "a", "b", "c", text="wandb_group = a waits for c, b waits for a\n")
    write_configs(tmp_path / "other", "c", basedir=tmp_path / "logs/other")
    files = [str(folder / f"{name}.txt") for name in "abc"]
    assert main([files[0], "--gpus", "3, GPU-1-2", *files[1:], str(tmp_path / "other")], fake) == 0
    text = capfd.readouterr().out
    lines = text[: text.rindex("config  ")].splitlines()
    outputs = [line for line in lines if line and not line.startswith("== ")]
    assert all(re.match(r"(a|b|/\S+/c\.txt) \| \S", line) for line in outputs), outputs
    assert {"a | a out 3", "b | b out GPU-1-2", "a | a first", "a | second", "b | no newline"} <= set(outputs)
    assert f"{files[2]} | c out GPU-1-2" in outputs  # two configs are called c
    assert order(tmp_path)[2] == "c"
    assert {name: cells[0] for name, cells in table(text).items()} == dict.fromkeys("abc", "done")


@pytest.mark.parametrize(("words", "device", "expected"), [
    (["--gpus", "0"], "auto", "a | a device cuda PCI_BUS_ID"), (["--gpus", "0"], "cpu", "a | a device cpu PCI_BUS_ID"),
    ([], "auto", "a device auto None"),
])  # fmt: skip
def test_a_run_on_a_gpu_never_falls_back_to_the_cpu(tmp_path, capfd, fake, monkeypatch, words, device, expected):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    folder = write_configs(tmp_path / "configs", "a")
    assert main([*words, str(folder), "--", "--device", device], fake) == 0
    assert expected in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize(("name", "sent", "status"), [
    ("SIGINT", signal.SIGINT, 130), ("SIGTERM", signal.SIGTERM, 143), ("SIGHUP", signal.SIGTERM, 129),
])  # fmt: skip
def test_a_signal_is_passed_on_once_to_every_run_and_no_more_are_started(tmp_path, capfd, fake, name, sent, status):
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored where the tests run
    try:
        waits = f"stop_{name} waits for wait"  # till both run
        folder = write_configs(tmp_path / "configs", f"stop_{name}", "wait", "z", text=f"wandb_group = {waits}\n")
        assert main(["--gpus", "0,1", str(folder)], fake) == status
    finally:
        signal.signal(signal.SIGHUP, previous)
    text = capfd.readouterr().out
    for run in (f"stop_{name}", "wait"):
        assert f"{run} saved {int(sent)}\n" in text
        assert table(text)[run][:2] == ["stopped", "7 of 20"]
    assert table(text)["z"] == ["not started", "0 of 20", "-", "-"]
    assert f"{name}: waiting for 2 to save" in text


def test_a_run_that_fails_while_stopping_is_said_to_fail_and_one_that_stops_by_itself_too(tmp_path, capsys, fake):
    folder = write_configs(tmp_path / "configs", "wait", text="wandb_group = wait waits for wait\n")
    script = Path(fake[1])
    script.write_text(FAKE.replace("sys.exit(128 + received[0])", "sys.exit(1)"))
    (folder / "wait.txt").rename(folder / "stop_SIGINT.txt")
    assert main([str(folder), "--", "--expname", "stop_SIGINT"], fake) == 130
    assert table(capsys.readouterr().out)["stop_SIGINT"][0] == "failed (1)"
    script.write_text("import sys; sys.exit(143)")
    assert main([str(folder)], fake) == 1
    assert table(capsys.readouterr().out)["stop_SIGINT"][0] == "failed (143)"


def test_what_cannot_be_started_has_failed(tmp_path, capsys, fake):
    folder = write_configs(tmp_path / "configs", "a", "b")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a").write_text("a file where the run's folder should be")
    assert main([str(folder)], fake) == 1
    rows = table(capsys.readouterr().out)
    assert [rows["a"][0], rows["b"][0]] == ["failed (1)", "done"]
    assert main([str(folder / "b.txt"), "--", "--no_reload"], [str(tmp_path / "no program")]) == 1
    assert table(capsys.readouterr().out)["b"][0] == "failed (1)"


def test_a_closed_terminal_blocks_no_run(tmp_path, fake, monkeypatch):
    folder = write_configs(tmp_path / "configs", "a")

    class Closed:
        def write(self, data):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        buffer = property(lambda self: self)

    monkeypatch.setattr(sys, "stdout", Closed())
    assert main([str(folder)], fake) == 0
    assert "no newline" in (tmp_path / "logs/a/train.log").read_text()


def test_paths_are_the_callers(tmp_path, monkeypatch, fake):
    """Configs and paths among the options are relative to where the caller is; runs are in the repository's root."""
    write_configs(tmp_path / "configs", "a")
    Path(fake[1]).write_text("import os, sys; print(os.getcwd(), *sys.argv[1:])")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = ["--basedir", "out", "--datadir=scene", "--N_iters", "3"]
    assert main(["../configs", "--", *options], fake) == 0
    config, here = tmp_path / "here/../configs/a.txt", tmp_path / "here"
    said = f"{ROOT} --config {config} --basedir {here}/out --datadir={here}/scene --N_iters 3"
    assert (here / "out/a/train.log").read_text().splitlines()[1] == said


def test_the_default_is_the_shipped_folder(capsys, monkeypatch, tmp_path, fake):
    monkeypatch.chdir(tmp_path)
    Path(fake[1]).write_text("")
    assert main(["--", "--basedir", "logs"], fake) == 0
    rows = table(capsys.readouterr().out)
    assert list(rows) == sorted(path.stem for path in (ROOT / "configs/infonerf/synthetic").glob("*.txt"))
    assert (tmp_path / "logs/synthetic/infonerf/lego/train.log").exists()


@pytest.mark.parametrize(("words", "expected"), [
    (["none"], "none: no such file or folder"),
    ([""], "'': no such file or folder"),
    (["empty"], r"empty: found no \*.txt in it"),
    (["configs", "bad/binary.txt"], r"bad/binary.txt: cannot be read \(not a text file\)"),
    (["configs", "bad/lines.txt"], "Unexpected line 5 in bad/lines.txt: = 3"),
    (["configs", "bad/typo.txt"], "unknown option .*N_rnd.* in bad/typo.txt"),
    (["configs", "bad/value.txt"], "bad/value.txt: .*N_rand: found '0'"),
    (["configs", "bad/less.txt"], "bad/less.txt: .*datadir: not given"),
    (["configs/a.txt", "configs"], "configs/a.txt: found the basedir .* and expname a of configs/a.txt"),
    (["configs", "twin/b.txt"], "twin/b.txt: found the basedir .* and expname a of configs/a.txt"),
    (["configs", "--", "--expname", "x"], "configs/b.txt: found the .* and expname x of configs/a.txt"),
    (["configs", "--", "--N_rnd", "3"], "configs/a.txt: unknown option .*N_rnd.* on the command line"),
    (["configs", "--", "--config", "c.txt"], "--config: found among the options for each run"),
    (["configs", "--N_iters", "3"], "unknown option '--N_iters', expected --gpus or --slurm; options for each"),
    (["configs", "--gpu", "0"], "unknown option '--gpu'"),
    (["configs", "--gpus"], "--gpus: expected one argument"),
    *((["configs", f"--gpus={bad}"], "--gpus: found .* expected different GPUs")
      for bad in ("", "a", "0,,1", "0,0", "-1", "0,1,", "1.5", "01,1")),
], ids=str)  # fmt: skip
def test_bad_input_is_one_line_status_2_and_nothing_is_started(tmp_path, capsys, monkeypatch, fake, words, expected):
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path / "configs", "a", "b")
    (tmp_path / "empty").mkdir()
    bad = write_configs(tmp_path / "bad", "typo", text="N_rnd = 3\n")
    write_configs(bad, "value", text="N_rand = 0\n")
    write_configs(bad, "lines", text="= 3\n")
    (bad / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (bad / "less.txt").write_text("expname = less\n")
    write_configs(tmp_path / "twin", "b", text="expname = a\n", basedir=tmp_path / "empty/../logs/")
    assert main(words, fake) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.sh: error: ")
    assert error.count("\n") == 1
    assert re.search(expected, error), error
    assert not (tmp_path / "logs").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "bash train.sh [--gpus 0,1 | --slurm" in capsys.readouterr().out


def shell(words, folder, **more):
    """train.sh as a user starts it: in a process group of its own, which a Ctrl-C reaches as a whole."""
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.Popen(["bash", os.path.relpath(ROOT / "train.sh", folder), *words], cwd=folder, env=environment,
                            text=True, stdout=subprocess.PIPE, start_new_session=True, **more)  # fmt: skip


def test_ctrl_c_with_a_real_run(tmp_path):
    write_blender(tmp_path / "scene", counts=(2, 1, 1))
    write_configs(tmp_path / "configs", "a", "b", text=TINY)
    process = shell(["configs", "--", "--N_iters", "1000000", "--datadir", "scene"], tmp_path)
    for line in process.stdout:
        if line.startswith("step 3 "):
            break
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    rows = table(text)
    assert process.returncode == 130
    assert [rows[name][0] for name in rows] == ["stopped", "not started"]
    assert "SIGINT: saved" in text
    step = int(rows["a"][1].split()[0])
    assert step >= 3
    assert (tmp_path / f"logs/a/{step:06d}.tar").exists()


def test_the_table_of_a_real_run(tmp_path, capsys, fake):
    scene = write_blender(tmp_path / "scene", counts=(2, 1, 1))
    config = write_configs(tmp_path / "configs", "a", text=f"{TINY}i_testset = 2\n") / "a.txt"
    options = ["--N_iters", "3", "--datadir", str(scene)]
    assert run_nerf.main(["--config", str(config), *options]) == 0
    metrics = json.loads((tmp_path / "logs/a/testset_000002/metrics.json").read_text())
    assert main([str(config), "--", *options], fake) == 0
    assert table(capsys.readouterr().out)["a"] == ["skipped", "3 of 3", f"{metrics['mean']['psnr']:.2f}", "-"]
