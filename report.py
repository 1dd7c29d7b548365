"""One HTML page on runs, for someone who would rather look than read: `python report.py LOGDIR [LOGDIR ...]`."""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infonerf.command_line import run_config
from infonerf.rendering.renderer import Renderer
from infonerf.report.page import make_page
from infonerf.report.read import MOST_POINTS, MOST_VIEWS, Source, read_scenes
from infonerf.scene.scene import Scene
from infonerf.system.arguments import COUNT, ScriptParser
from infonerf.system.errors import exit_status
from infonerf.system.files import atomic_file, check_output
from infonerf.system.logs import say
from infonerf.version import VERSION
from loss import losses_of, ray_entropy, regularizers_of
from run_nerf_helpers import load_scene, open_run


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    logdir: list[Path]
    output: Path
    views: int
    mesh: bool
    entropy: bool
    device: str


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="One HTML page on runs: their numbers, curves, pictures and options.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--views", type=COUNT, default=MOST_VIEWS, help="at most so many test views of a scene")
    parser.add_argument("--mesh", action="store_true", help="make each run's mesh, to turn it in the page (seconds to "
                        "minutes; pip install -r requirements-export.txt)")
    parser.add_argument("--entropy", action="store_true", help="also render the entropy of the test views' rays")
    parser.add_argument("--device", default="auto", help="of these two: auto, cpu, cuda, cuda:N, mps")
    return Arguments(**vars(parser.parse_args(argv)))


def source_of(logdir: Path, device: str) -> Source:
    config = run_config(logdir)
    regularizers = [loss.label for loss in regularizers_of(config.losses)]

    def opened(step: int | None) -> tuple[Renderer, Scene]:
        run = open_run(logdir, device=device, ckpt_render_iter=step)
        return run.renderer, run.scene

    return Source(logdir, config, regularizers, partial(load_scene, config.data), opened)


def loss_labels(sources: list[Source]) -> dict[str, str]:
    """Name -> label of every loss that any of the runs has."""
    found = [loss for source in sources for loss in losses_of(source.config.losses)]
    return {loss.name: loss.label for loss in found}


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    check_output("output", given.output)
    sources = [source_of(logdir, given.device) for logdir in given.logdir]
    scenes = read_scenes(sources, given.views, given.mesh, ray_entropy if given.entropy else None)
    page = make_page(scenes, loss_labels(sources), VERSION, MOST_POINTS).encode(errors="replace")
    with atomic_file(given.output) as file:
        file.write(page)
    shown = sum(len(scene.views) for scene in scenes)
    runs = f"{len(given.logdir)} run{'s' if len(given.logdir) > 1 else ''}"
    say(f"{given.output.resolve()}: {runs}, {shown} test views, {len(page) / 1e6:.1f} MB; open it in a browser")
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("report.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
