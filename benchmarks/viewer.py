"""How fast the viewer paints, without a browser: `python benchmarks/viewer.py LOGDIR [--seconds 5]`.

First an eye that moves 30 times a second: how long after a movement its first picture is there, and how large it is.
Then an eye that rests: how long each sharper picture takes. Then whole pictures of several sizes.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from infonerf.system import startup  # noqa: E402, F401  # isort: skip  # before torch
import torch  # noqa: E402

from infonerf.scene.poses import pose_between  # noqa: E402
from infonerf.system.arguments import ABOVE_ZERO, ScriptParser  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402
from infonerf.viewer.frames import Pace, Source, Wish, paint  # noqa: E402
from infonerf.viewer.page import vertical_fov  # noqa: E402
from infonerf.viewer.painter import Painter  # noqa: E402
from loss import ray_entropy  # noqa: E402
from run_nerf_helpers import open_run  # noqa: E402

FULL, SIZES = 400, (50, 100, 200, 400)
MOVES = 30  # a second


def raised(error: Exception) -> None:
    raise error


def run() -> int:
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path, help="folder of a trained run")
    parser.add_argument("--seconds", type=ABOVE_ZERO, default=5.0, help="of moving, and of rests at most")
    parser.add_argument("--datadir", help="where the scene lies now")
    given = parser.parse_args()
    opened = open_run(given.logdir, **({"datadir": given.datadir} if given.datadir else {}))
    scene, source = opened.scene, Source(opened.renderer, opened.scene.cameras)
    fov, shown, wished = vertical_fov(scene, scene.split.train[0]), [], {}

    def show(who, wish, picture, last) -> None:
        shown.append((time.perf_counter(), wish, picture.acc.shape))

    painter = Painter(lambda: [source], ray_entropy, show, raised)
    first, other = (scene.poses[view] for view in scene.split.train[:2])
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{torch.get_num_threads()} threads on {source.renderer.networks.device}{load}")

    def wish_at(t: float) -> None:
        wish = Wish(pose_between(first, other, t, None), fov, (FULL, FULL))
        wished[id(wish)] = time.perf_counter(), wish
        painter.wish("eye", wish)

    for _ in range(2):  # once to learn the speed
        shown.clear()
        start, moves = time.perf_counter(), itertools.count()
        move = next(moves)
        while (now := time.perf_counter() - start) < given.seconds:
            while move <= now * MOVES:
                wish_at(0.5 + 0.4 * (move % 60) / 60)
                move = next(moves)
            painter.work_a_bit()
    waits = [at - wished[id(wish)][0] for at, wish, _ in shown]
    sides = [size[0] for *_, size in shown]
    print(f"moving: {len(shown) / given.seconds:.1f} pictures a second, of {statistics.median(sides):.0f} pixels a "
          f"side (median), {1000 * statistics.median(waits):.0f} ms after the movement (median), "
          f"{1000 * max(waits):.0f} ms at most")
    shown.clear()
    wish_at(0.3)
    start = time.perf_counter()
    while painter.busy and time.perf_counter() - start < 12 * given.seconds:
        painter.work_a_bit()
    print("resting: " + ", ".join(f"{size[0]} x {size[1]} after {at - start:.2f} s" for at, _, size in shown))
    for side in SIZES:
        start, pictures = time.perf_counter(), 0
        while pictures == 0 or time.perf_counter() - start < min(given.seconds, 2):
            wish, pace = Wish(first, fov, (side, side)), Pace(painter.pace.rate)
            for _ in paint([source], wish, wish.size, pace, ray_entropy):
                pass
            pictures += 1
        seconds = (time.perf_counter() - start) / pictures
        print(f"{side} x {side}: {1 / seconds:.2f} a second ({side * side / seconds:,.0f} rays/s)")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("viewer.py", run))
