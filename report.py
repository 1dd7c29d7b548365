"""One HTML page on runs, for someone who would rather look than read: `python report.py LOGDIR [LOGDIR ...]`."""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infonerf.command_line import run_config
from infonerf.report.page import make_page
from infonerf.report.read import MOST_POINTS, MOST_VIEWS, Source, read_scenes
from infonerf.system.arguments import COUNT, ScriptParser
from infonerf.system.errors import InputError, exit_status
from infonerf.system.files import atomic_file
from infonerf.system.logs import say
from infonerf.version import VERSION
from loss import losses_of, regularizers_of
from run_nerf_helpers import load_scene


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    logdir: list[Path]
    output: Path
    views: int


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="One HTML page on runs: their numbers, curves, pictures and options.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--views", type=COUNT, default=MOST_VIEWS, help="at most so many test views of a scene")
    return Arguments(**vars(parser.parse_args(argv)))


def check_output(output: Path) -> None:
    """Raise InputError where the page cannot be written, before anything is read."""
    if output.is_dir():
        raise InputError(f"--output {output}: found a folder, expected the name of a file to write")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: found no folder {output.parent}, expected it to exist")
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"--output {output}: cannot write to {output.parent}, expected a writable folder")


def source_of(logdir: Path) -> Source:
    config = run_config(logdir)
    regularizers = [loss.label for loss in regularizers_of(config.losses)]
    return Source(logdir, config, regularizers, partial(load_scene, config.data))


def loss_labels(sources: list[Source]) -> dict[str, str]:
    """Name -> label of every loss that any of the runs has."""
    found = [loss for source in sources for loss in losses_of(source.config.losses)]
    return {loss.name: loss.label for loss in found}


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    check_output(given.output)
    sources = [source_of(logdir) for logdir in given.logdir]
    scenes = read_scenes(sources, given.views)
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
