"""Walk around in a trained run, or in two side by side, in a browser: `python view.py LOGDIR [LOGDIR]`.

`run_nerf.py --view` shows the same page during training.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from infonerf.command_line import run_config
from infonerf.config import Config
from infonerf.rendering.renderer import Renderer
from infonerf.scene.scene import Scene
from infonerf.system.arguments import POSITIVE, ScriptParser, bounded
from infonerf.system.errors import InputError, exit_status
from infonerf.system.logs import say
from infonerf.viewer.frames import FIRST
from infonerf.viewer.page import Page, Shown
from infonerf.viewer.path_tab import PathTab
from infonerf.viewer.server import HERE, require_viser
from loss import ray_entropy
from run_nerf_helpers import checkpoint_renderer, open_checkpoint

PORT = 8080
LOOK_AFTER = 2.0  # seconds from one look at the runs' folders to the next


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    logdir: list[Path]
    step: int | None
    host: str
    port: int
    datadir: str | None
    device: str


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="Walk around in one run, or two side by side, in a browser.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname), or of two")
    parser.add_argument("--step", type=POSITIVE, help="begin with the checkpoint of this step, not with the newest")
    parser.add_argument("--host", default=HERE, help=f"address to listen on (default: {HERE}, this machine alone)")
    parser.add_argument("--port", type=bounded(int, 1, 65535), default=PORT,
                        help=f"port to listen on, or the next that is free (default: {PORT})")
    parser.add_argument("--datadir", help="where the scene is now, if it has moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    given = Arguments(**vars(parser.parse_args(argv)))
    if len(given.logdir) > 2:
        parser.error(f"logdir: found {len(given.logdir)} runs, expected one, or two side by side")
    return given


def open_shown(logdir: Path, given: Arguments) -> Shown:
    options = {"eval_only": True, "device": given.device, "ckpt_render_iter": given.step}
    config = run_config(logdir).replace(**options | ({"datadir": given.datadir} if given.datadir else {}))
    run = open_checkpoint(config)
    device = run.renderer.networks.device
    load = partial(renderer_of_step, config, run.scene, device)
    return Shown.of_renderer(logdir.resolve().name, logdir, run.scene, run.renderer, run.step, load)


def renderer_of_step(config: Config, scene: Scene, device, step: int) -> Renderer:
    return checkpoint_renderer(config.replace(ckpt_render_iter=step), scene, device)


def check_same_scene(one: Shown, other: Shown) -> None:
    """Raise InputError where two runs do not see the same world."""
    names = [name for name in one.scene.view_names if name in other.scene.view_names]
    places = [shown.scene.poses[[shown.scene.view_names.index(name) for name in names]] for shown in (one, other)]
    if not names or not np.allclose(*places) or (one.scene.cameras.ndc is None) != (other.scene.cameras.ndc is None):
        raise InputError(f"{other.folder}: found cameras of {other.scene.name} other than {one.folder} has of "
                         f"{one.scene.name}, expected two runs of one scene")


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    require_viser()
    if "OMP_NUM_THREADS" not in os.environ:  # a core is left to the browser: threads that wait for it are far slower
        torch.set_num_threads(max(torch.get_num_threads() - 1, 1))
    runs = [open_shown(logdir, given) for logdir in given.logdir]
    if len(runs) > 1:
        check_same_scene(*runs)
    page = Page(runs, ray_entropy, given.host, given.port, FIRST)
    PathTab(page)
    say(f"{page.address}  (Ctrl-C ends it)")
    try:
        serve(page)
    except KeyboardInterrupt:
        return 0
    finally:
        page.close()


def serve(page: Page) -> None:
    """Paint, until Ctrl-C."""
    looked = time.monotonic()
    while True:
        page.painter.wait(LOOK_AFTER)
        page.painter.work(LOOK_AFTER)
        if time.monotonic() - looked > LOOK_AFTER:
            page.look_after()
            looked = time.monotonic()


def main(argv: list[str] | None = None) -> int:
    return exit_status("view.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
