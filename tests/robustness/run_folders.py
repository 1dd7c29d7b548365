"""report.py on run folders that are damaged in any part: `python tests/robustness/run_folders.py --rounds 3000`.

Of a good folder one to three files or folders are damaged, removed, emptied, made a folder or a file, a link that leads
nowhere, or given a name that is hostile. Whatever it is, report.py makes a page of which nothing but our own script
runs, or ends in one line and exit status 2. (test_run_folders.py does a hundred rounds.)
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as iio
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

import report
from infonerf.command_line import as_text, parse_options
from infonerf.rendering.pictures import write_gif
from infonerf.report.page import FRAME, MESH_SCRIPT
from robustness.fuzz import TOKENS, damaged
from robustness.fuzz_loaders import RECORD
from support.scenes import random_pixels, write_blender

HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "<!--",
    "-->", "]]>", "</title><svg onload=alert(1)>", "javascript:alert(1)", "&lt;b&gt;&#x3c;script&#x3e;", "{{7*7}}",
    "\" onmouseover=\"alert(1)", "$title ${nav} $$", "\u2028\u2029\u202e\x1b[31m", "\ud800", "`+alert(1)+`",
    "</style><style>*{background:url(//evil)}", "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>", "<iframe srcdoc='<script>alert(1)</script>'>",
)  # fmt: skip
ACTIVE = {"iframe", "object", "embed", "base", "link", "form", "foreignobject", "use", "animate", "set", "audio",
          "video"}  # fmt: skip
WHERE = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "ping"}


# What a page may hold.


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.scripts, self.wrong, self.inside = [], [], False

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        if tag == "script":
            self.scripts.append("")
            if attributes:
                self.wrong.append(f"a script with {attributes}")
        if tag in ACTIVE:
            self.wrong.append(f"an element {tag}")
        for name, value in attributes:
            if name.startswith("on"):
                self.wrong.append(f"an attribute {name}")
            if name in WHERE and not (value or "").startswith(("data:image/", "#", "data:,")):
                self.wrong.append(f"{name}={value}")
            if name == "style" and not (value.startswith("--n: ") and value[5:].isdigit()):
                self.wrong.append(f"style={value}")
            if name == "http-equiv" and value != "Content-Security-Policy":
                self.wrong.append(f"http-equiv={value}")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def own_script() -> str:
    frame = FRAME.read_text(encoding="utf-8")
    return frame[frame.index("<script>") + 8 : frame.index("</script>")]


def what_is_foreign(page: str) -> list[str]:
    """In a page of report.py: scripts, events and addresses that are not its own, and styles of elements."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    ours = [own_script().replace("$mesh_script", text) for text in ("", MESH_SCRIPT.read_text(encoding="utf-8"))]
    if len(reader.scripts) != 1 or reader.scripts[0] not in ours:
        reader.wrong.append(f"{len(reader.scripts)} scripts")
    return reader.wrong


# A run's folder, and what becomes of it.


def write_run(folder: Path, name: str = "run") -> Path:
    """logs/NAME as an evaluated run leaves it, but for its checkpoint, and the scene beside it."""
    from torch.utils.tensorboard import SummaryWriter

    scene = folder / "scene"
    if not scene.exists():
        write_blender(scene, counts=(2, 1, 3))
    logdir = folder / "logs" / name
    given = ["--expname", name, "--basedir", str(folder / "logs"), "--datadir", str(scene), "--dataset_type", "blender"]
    config, _ = parse_options([*given, "--wandb_group", "a group", "--entropy", "--entropy_ray_zvals_lambda", "0.01"])
    pictures, path = logdir / "testset_000002", logdir / "path_000002"
    pictures.mkdir(parents=True)
    path.mkdir()
    (logdir / "args.txt").write_text(as_text(config))
    (logdir / "000002.tar").write_bytes(b"none")
    (pictures / "metrics.json").write_text(json.dumps(RECORD, indent=1))
    for i in range(3):
        iio.imwrite(pictures / f"test_r_{i}.png", random_pixels(i, 3))
        iio.imwrite(pictures / f"test_r_{i}_depth_color.png", random_pixels(i + 9, 3))
    write_gif(path / "rgb.gif", [random_pixels(i, 3) for i in (0, 1)])
    write_gif(path / "depth.gif", [random_pixels(i, 3) for i in (2, 3)])
    iio.imwrite(logdir / "plane_sweep.jpg", random_pixels(7, 3))
    with SummaryWriter(logdir) as writer:
        for step in range(4):
            writer.add_scalar("loss/total", 0.5 / (step + 1), step)
            writer.add_scalar("odd/<b>", step, step)
    return logdir


def damage(logdir: Path, rng: random.Random) -> str:
    """One thing in a run's folder that is not as it should be; in words."""
    files = sorted(path for path in logdir.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing left"
    path = rng.choice([*files, *[file for file in files if file.name in ("metrics.json", "args.txt")] * 3])
    act = rng.choice((content, content, content, hostile, hostile, *ACTS))
    act(path, rng)
    return f"{act.__name__} {path.relative_to(logdir)}"


def content(path, rng):
    path.write_bytes(damaged(path.read_bytes(), rng))


def hostile(path, rng):
    """Some text of a file is another one."""
    if path.name == "metrics.json":
        with contextlib.suppress(ValueError, AttributeError):
            record = json.loads(path.read_text())
            text = rng.choice(HOSTILE)
            changes = hostile_record(text)
            key = rng.choice(sorted(changes))
            path.write_text(json.dumps(record | {key: changes[key]}))
            return
    words = path.read_bytes().split(b"group") if path.name == "args.txt" else [path.read_bytes(), b""]
    new = rng.choice(HOSTILE).encode(errors="replace") if rng.random() < 0.8 else rng.choice(TOKENS)
    path.write_bytes(new.join(words))


def hostile_record(text: str) -> dict:
    """What an evaluation's record may hold of a text."""
    texts = dict.fromkeys(("scene", "device", "lpips_missing", "version", "weights", "lpips_net", "kind"), text)
    return texts | {"views": {text: {"mse": 0.1, text: 1.0}}, "unmeasured": {text: text}, "options": {text: text}}


def cut_to_nothing(path, rng):
    path.write_bytes(b"")


def remove(path, rng):
    path.unlink()


def to_folder(path, rng):
    path.unlink()
    path.mkdir()


def to_link(path, rng):
    path.unlink()
    path.symlink_to(rng.choice(("nowhere", path.name, "..", "/dev/null", "/")))


def rename(path, rng):
    new = rng.choice(HOSTILE).replace("/", "|").encode(errors="surrogatepass")[:100]
    target = os.path.join(os.fsencode(path.parent), new + os.fsencode(path.suffix))
    os.rename(path, target)


def folder_to_file(path, rng):
    if path.parent.name not in ("testset_000002", "path_000002"):
        return
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"a file")


ACTS = (cut_to_nothing, remove, to_folder, to_link, rename, folder_to_file)


# The rounds.


def outcome(logdirs: list[Path], output: Path) -> tuple[str, str]:
    """"page" or "refused", or "failed" and why."""
    output.unlink(missing_ok=True)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = report.main([*map(str, logdirs), "--output", str(output)])
    except BaseException:
        return "failed", traceback.format_exc()
    said = err.getvalue()
    if status == 2 and not output.exists() and said.count("\n") == 1 and said.strip().isprintable():
        return "refused", said
    if status or said:
        return "failed", f"status {status}: {said}"
    wrong = what_is_foreign(output.read_text(encoding="utf-8"))
    return ("failed", f"in the page: {wrong}") if wrong else ("page", "")


def fuzz(rounds: int, seed: int, folder: Path) -> tuple[Counter, list[str], float]:
    """How often there was a page, how often a line, and what failed; and the slowest round in seconds."""
    good, other = write_run(folder / "good"), write_run(folder / "good", "other")
    logdir, output, counts, failed, slowest = folder / "logs" / "run", folder / "page.html", Counter(), [], 0.0
    for number in tqdm(range(rounds), leave=False, mininterval=1):
        rng = random.Random(f"{seed} {number}")
        shutil.rmtree(logdir, ignore_errors=True)
        shutil.copytree(good, logdir)
        done = [damage(logdir, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        start = time.perf_counter()
        result, why = outcome([logdir, other] if rng.random() < 0.3 else [logdir], output)
        slowest = max(slowest, time.perf_counter() - start)
        counts[result] += 1
        if result == "failed":
            failed.append(f"round {number}, {', '.join(done)}: {why}")
            shutil.copytree(logdir, folder / f"failed_{number}", symlinks=True)
    return counts, failed, slowest


def main() -> int:
    parser = argparse.ArgumentParser(description="report.py on damaged run folders; exit status 1 where it failed.")
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)
    folder = Path(tempfile.mkdtemp(prefix="run_folders_"))
    counts, failed, slowest = fuzz(given.rounds, given.seed, folder)
    print("\n".join(failed))
    print(f"{dict(counts)}, slowest {slowest:.2f} s" + (f"; kept in {folder}" if failed else ""))
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
