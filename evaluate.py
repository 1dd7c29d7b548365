"""Render views of finished or running runs, write them as images, measure them: `python evaluate.py LOGDIR ...`.

As `--eval_only` does, and training at `i_testset`; `--rays` and `--tiles` are estimates, and write nothing.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infonerf.command_line import run_config
from infonerf.config import Config
from infonerf.evaluation.estimates import draw_rays, draw_tiles, measure_tiles, psnr_of_rays, rendered_pixels
from infonerf.evaluation.metrics import finite, means
from infonerf.evaluation.ns_eval import check_ns_eval_output, write_ns_eval
from infonerf.evaluation.perceptual import BACKBONES, Lpips
from infonerf.evaluation.record import Record, metrics_table, records_table
from infonerf.scene.splits import check_views
from infonerf.system.arguments import COUNT, POSITIVE, ScriptParser, bounded
from infonerf.system.console import is_lost
from infonerf.system.errors import exit_status
from infonerf.system.logs import progress_bar, say
from infonerf.system.ranks import Ranks
from infonerf.training.checkpoint import path_of
from run_nerf_helpers import OpenedRun, evaluate_checkpoint, open_checkpoint, views_of


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    logdir: list[Path]
    split: str
    step: int | None
    render_factor: int
    rays: int | None
    tiles: int | None
    views: list[int] | None
    colour_correct: bool
    lpips: str | None
    lpips_weights: Path | None
    nerfstudio_json: Path | None
    datadir: str | None
    device: str

    @property
    def kind(self) -> str:
        return f"{self.split}set"


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(description="Evaluate runs on unseen views: images, metrics.json, results.csv, a table.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--split", choices=("test", "val"), default="test",
                        help="the test views, or those by which to choose between recipes (DTU has but test views)")
    parser.add_argument("--step", type=POSITIVE, help="the checkpoint of this step, instead of the newest")
    parser.add_argument("--render_factor", type=COUNT, default=0, help="render at 1/n of the size")
    few = parser.add_mutually_exclusive_group()
    few.add_argument("--rays", type=bounded(int, 1, 10**7), help="only the PSNR of so many random rays, at full size, "
                     "of all the views together; nothing is written")
    few.add_argument("--tiles", type=bounded(int, 1, 10**6), help="only PSNR and SSIM of so many random tiles of 22 x "
                     "22 pixels, at full size, of all the views together; nothing is written")
    parser.add_argument("--views", type=COUNT, nargs="+", help="rays, tiles: of these views, by number, instead of a "
                        "split's")
    parser.add_argument("--colour_correct", action="store_true", help="rays: also the PSNR of each view's "
                        "channels with the gain and offset that fit best, for photographs of another exposure (of "
                        "views with at least 50 rays)")
    parser.add_argument("--lpips", choices=tuple(BACKBONES), help="LPIPS by this network, or an error (by default "
                        "that of vgg, where it is there)")
    parser.add_argument("--lpips_weights", type=Path, metavar="FILE", help="the weights of that network, as "
                        "torchvision has them (default: where it keeps them)")
    parser.add_argument("--nerfstudio_json", type=Path, metavar="FILE", help="also write the results in the shape of "
                        "nerfstudio's ns-eval")
    parser.add_argument("--datadir", help="where the scene is now, if it has moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    given = Arguments(**vars(parser.parse_args(argv)))
    if given.views and not (given.rays or given.tiles):
        parser.error("--views: needs --rays or --tiles")
    if given.colour_correct and not given.rays:
        parser.error("--colour_correct: needs --rays")
    if given.nerfstudio_json and len(given.logdir) > 1:
        parser.error(f"--nerfstudio_json: found {len(given.logdir)} runs, expected one")
    for option in ("rays", "tiles"):
        if getattr(given, option) and (given.lpips or given.lpips_weights or given.nerfstudio_json):
            parser.error(f"--{option}: writes nothing and has no LPIPS, expected no --lpips, --lpips_weights or "
                         "--nerfstudio_json beside it")
        if getattr(given, option) and given.render_factor > 1:
            parser.error(f"--render_factor: {option} are of full size, expected no --{option} beside it")
    return given


def options_of(given: Arguments) -> dict[str, Any]:
    """What the command line says of a run's own options."""
    options = {"eval_only": True, "device": given.device, "render_factor": given.render_factor}
    options["ckpt_render_iter"] = given.step
    return options | ({"datadir": given.datadir} if given.datadir else {})


# Estimates, which write nothing.


def estimates(configs: Mapping[str, Config], given: Arguments) -> str:
    """A table of all runs."""
    return metrics_table({name: estimate(open_checkpoint(config), given) for name, config in configs.items()})


def estimate(run: OpenedRun, given: Arguments) -> tuple[int, str, Mapping]:
    """Measure random rays or tiles of a run's views, or of the chosen ones: its step, the number of views, means."""
    if given.views:
        check_views(given.views, len(run.scene.view_names), "views")
    views = given.views or views_of(run.scene, given.kind, measured=True)
    mean = means_of_rays(run, views, given) if given.rays else means_of_tiles(run, views, given.tiles)
    return run.step, str(len(views)), mean


def means_of_rays(run: OpenedRun, views: Sequence[int], given: Arguments) -> dict:
    drawn = draw_rays(run.scene, views, given.rays, run.renderer.networks.device)
    with progress_bar(total=sum(len(part.rays) for part in drawn), unit="ray", unit_scale=True, leave=False) as bar:
        return psnr_of_rays(run.renderer, drawn, bar.update, given.colour_correct)


def means_of_tiles(run: OpenedRun, views: Sequence[int], n_tiles: int) -> dict:
    drawn = dict(zip(views, draw_tiles(run.scene, views, n_tiles), strict=True))
    n_rays = sum(int(rendered_pixels(centres).sum()) for centres in drawn.values())
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, leave=False) as bar:
        return means({view: finite(measure_tiles(run.renderer, run.scene, view, centres, bar.update))
                      for view, centres in drawn.items()})  # fmt: skip


# The script.


def write_results(path: Path, config: Config, record: Record) -> None:
    """In the shape of nerfstudio's."""
    method = "infonerf" if config.losses.entropy else "nerf"
    write_ns_eval(path, record, config.run.expname, method, path_of(config.run.folder, record.step))


def run(argv: list[str]) -> int:
    configs: dict[str, Config] = {}
    with Ranks.from_environment() as ranks:
        with ranks.together():
            given = parse_arguments(argv)
            for logdir in given.logdir:
                configs[str(logdir)] = run_config(logdir).replace(**options_of(given))
            if given.nerfstudio_json:
                check_ns_eval_output(given.nerfstudio_json)
            chosen = given.lpips or given.lpips_weights
            lpips = Lpips(given.lpips or "vgg", given.lpips_weights) if chosen else None
        if given.rays or given.tiles:
            say(*ranks.of_first(lambda: estimates(configs, given)).split("\n"))
            return int(is_lost())
        records = {name: evaluate_checkpoint(config, [given.kind], ranks, lpips)[given.kind]
                   for name, config in configs.items()}  # fmt: skip
        say(*records_table(records).split("\n"))
        if given.nerfstudio_json:
            [(name, record)] = records.items()
            ranks.of_first(lambda: write_results(given.nerfstudio_json, configs[name], record))
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("evaluate.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
