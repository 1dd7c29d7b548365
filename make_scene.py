"""From photographs, or a video, to a scene that can be trained on: `python make_scene.py PHOTOS --output data/mine`.

COLMAP finds the cameras; what is written is images/ and sparse/0 of an undistorted COLMAP model, cameras.png to look at
and make_scene.json.
"""

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from infonerf.capture.make import Request, make_scene
from infonerf.capture.reconstruct import require_pycolmap
from infonerf.system.arguments import ABOVE_ZERO, ScriptParser, bounded
from infonerf.system.errors import exit_status
from infonerf.system.logs import say


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    photographs: Path
    output: Path
    frames: int
    fov: float | None
    focal: float | None


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="Cameras of photographs or of a video, by COLMAP: a scene to train on.")
    parser.add_argument("photographs", type=Path, help="a folder of photographs (JPEG, PNG, WebP, HEIC), or a video")
    parser.add_argument("--output", type=Path, required=True, help="the scene's folder, a new one")
    parser.add_argument("--frames", type=bounded(int, 2, 10**4), default=40, help="so many frames of a video, the "
                        "sharpest of equal stretches (default: 40)")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--fov", type=bounded(float, 1, 170), help="field of view along the longer side, in degrees, "
                       "instead of what the EXIF says")
    known.add_argument("--focal", type=ABOVE_ZERO, help="focal length in pixels, instead of what the EXIF says")
    return Arguments(**vars(parser.parse_args(argv)))


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    require_pycolmap()
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):  # so that what is half done goes away
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # as nohup has it
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    make_scene(Request(given.photographs, given.output, given.frames, given.fov, given.focal))
    say(f"next: python run_nerf.py --config configs/capture.txt --datadir {shlex.quote(str(given.output))}")
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("make_scene.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
