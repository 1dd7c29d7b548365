"""A run as a mesh, or as a cloud of points, for other programs: `python export_mesh.py LOGDIR`."""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from infonerf.export.files import ENDINGS, check_new_file, require_packages, write_cloud, write_mesh
from infonerf.export.mesh import MeshOptions, make_cloud, make_mesh
from infonerf.system.arguments import ABOVE_ZERO, POSITIVE, ScriptParser, bounded
from infonerf.system.errors import exit_status
from infonerf.system.logs import say
from run_nerf_helpers import open_run

OF_MESHES = {"resolution": 256, "threshold": None, "keep_floaters": False, "simplify": None}


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    logdir: Path
    output: Path | None
    overwrite: bool
    resolution: int
    threshold: float | None
    keep_floaters: bool
    simplify: int | None
    points: bool
    step: int | None
    datadir: str | None
    device: str


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="A mesh of a run, or a cloud of points, in the world of the scene's files.")
    parser.add_argument("logdir", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--output", type=Path, help="the file; its ending, .ply, .glb or .obj, says the format "
                        "(default: mesh_STEP.ply in the run's folder, or points_STEP.ply)")
    parser.add_argument("--overwrite", action="store_true", help="also where there is such a file")
    parser.add_argument("--resolution", type=bounded(int, 8, 1024), default=OF_MESHES["resolution"],
                        help="cells along the longest side of the scene's bounds (default: 256)")
    parser.add_argument("--threshold", type=ABOVE_ZERO, help="the density of the surface, instead of that at "
                        "which half of a training ray's light is stopped (lower quartile)")
    parser.add_argument("--keep_floaters", action="store_true", help="also small loose pieces, and cavities that "
                        "nobody sees")
    parser.add_argument("--simplify", type=bounded(int, 4), metavar="N", help="to about N faces")
    parser.add_argument("--points", action="store_true", help="instead of a mesh, the points that the pixels of the "
                        "training views show, as PLY")
    parser.add_argument("--step", type=POSITIVE, help="the checkpoint of this step, instead of the newest")
    parser.add_argument("--datadir", help="where the scene is now, if it has moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    given = Arguments(**vars(parser.parse_args(argv)))
    for option, default in OF_MESHES.items() if given.points else ():
        if getattr(given, option) != default:
            parser.error(f"--{option}: is of meshes, expected no --points beside it")
    return given


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    require_packages()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no half file is left
    endings = (".ply",) if given.points else ENDINGS
    if given.output:
        check_new_file(given.output, endings, given.overwrite)
    moved = {"datadir": given.datadir} if given.datadir else {}
    opened = open_run(given.logdir, device=given.device, ckpt_render_iter=given.step, **moved)
    kind = "points" if given.points else "mesh"
    output = given.output or given.logdir / f"{kind}_{opened.step:06d}.ply"
    check_new_file(output, endings, given.overwrite)
    if given.points:
        cloud = make_cloud(opened.renderer, opened.scene)
        write_cloud(output, cloud)
        say(f"{output}: {len(cloud.points):,} points")
    else:
        options = MeshOptions(**{option: getattr(given, option) for option in OF_MESHES})
        mesh = make_mesh(opened.renderer, opened.scene, options)
        write_mesh(output, mesh)
        say(f"{output}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces")
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("export_mesh.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
