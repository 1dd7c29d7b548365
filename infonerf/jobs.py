"""The runs of a batch: from configs to jobs, each checked, and the table of what became of them."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from infonerf.command_line import parse_options
from infonerf.config import PATHS, Config
from infonerf.evaluation.record import Record
from infonerf.system.errors import InputError
from infonerf.system.logs import text_table
from infonerf.system.picture_folders import parse_picture_folder
from infonerf.training import checkpoint
from infonerf.training.overdue import overdue

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Job:
    """A config and what became of it. shown: its path as given. label: its name before lines of its output."""

    shown: str
    path: Path
    config: Config
    label: str = ""
    state: str = "not started"
    seconds: float | None = None

    @property
    def folder(self) -> Path:
        """basedir/expname, where run_nerf.py, run from the repository's root, writes."""
        return ROOT / self.config.run.folder

    @property
    def step(self) -> int:
        """Of the newest checkpoint, by its name; 0 where there is none."""
        newest = checkpoint.newest(self.folder)
        return int(newest.stem) if newest else 0

    @property
    def finished(self) -> bool:
        """Whether N_iters is reached, and all pictures are there that were due. (A run that patience stopped, or
        without test views, is started, and finds nothing to do.)"""
        other_work = self.config.run.no_reload or self.config.looking.instead_of_training
        return not other_work and self.step >= self.n_steps and not overdue(self.config, self.step, ROOT)

    @property
    def n_steps(self) -> int:
        return self.config.stopping.N_iters


def config_files(given: str, caller: Path) -> list[tuple[str, Path]]:
    """The configs that an argument stands for: each as shown to the user, and its absolute path."""
    path = caller / given
    if not given or not path.exists():
        raise InputError(f"{given or repr(given)}: no such file or folder, expected a config or a folder of configs")
    if not path.is_dir():
        return [(given, path)]
    found = sorted(file for file in path.glob("*.txt") if not file.name.startswith(".") and not file.is_dir())
    if not found:
        raise InputError(f"{given}: found no *.txt in it, expected a folder of configs")
    return [(os.path.join(given, file.name), file) for file in found]


def with_absolute_paths(options: list[str], caller: Path) -> list[str]:
    """Options for each run, which runs in the repository's root, with the paths that the caller meant."""
    if any(word.partition("=")[0] == "--config" for word in options):
        raise InputError("--config: found among the options for each run, expected configs before the --")
    names = [f"--{name}" for name in PATHS]
    words = []
    for word in options:
        name, equals, value = word.partition("=")
        if words and words[-1] in names and not word.startswith("--") and word != "None":
            word = os.path.join(caller, word)
        elif name in names and equals and value != "None":
            word = f"{name}={os.path.join(caller, value)}"
        words.append(word)
    return words


def create_jobs(files: list[tuple[str, Path]], options: list[str]) -> list[Job]:
    """A job a config, all of them checked as run_nerf.py would."""
    jobs, runs = [], {}
    for shown, path in files:
        try:
            config, _ = parse_options(["--config", str(path), *options])
        except InputError as error:
            message = str(error) if str(path) in str(error) else f"{shown}: {error}"
            raise InputError(message.replace(str(path), shown)) from error
        job = Job(shown, path, config)
        other = runs.setdefault(os.path.realpath(job.folder), job)
        if other is not job:
            place = f"basedir {config.run.basedir} and expname {config.run.expname}"
            raise InputError(f"{shown}: found the {place} of {other.shown}, expected a run folder of its own")
        jobs.append(job)
    names = Counter(job.path.stem for job in jobs)
    for job in jobs:
        job.label = job.path.stem if names[job.path.stem] == 1 else job.shown
    return jobs


def newest_means(job: Job) -> dict[str, float | None]:
    """The means of the newest evaluation, none where there is none that can be read, or it was stopped half-way.
    An evaluation later than the newest checkpoint is one of a run that was started over."""
    steps = {}
    for folder in job.folder.glob("testset_*"):
        pictures = parse_picture_folder(folder.name)
        if pictures and pictures.factor == 1 and pictures.step <= (job.step or math.inf):
            steps[pictures.step] = folder
    if not steps:
        return {}
    try:
        record = Record.read(steps[max(steps)] / "metrics.json")
    except InputError:
        return {}
    return {} if record.views_missing else record.mean


def jobs_table(jobs: list[Job]) -> str:
    """A line a job; where each has a scene of its own and a PSNR, a line of their means. Within masks if there are."""
    measured = [newest_means(job) for job in jobs]
    columns = {"psnr": "PSNR"}
    if any(mean.get("psnr_masked") is not None for mean in measured):
        columns["psnr_masked"] = "in mask"
    rows = [("config", "state", "steps", *columns.values(), "minutes")]
    for job, mean in zip(jobs, measured, strict=True):
        minutes = "-" if job.seconds is None else f"{job.seconds / 60:.1f}"
        steps = f"{job.step} of {job.n_steps}"
        rows.append((job.shown, job.state, steps, *(shown(mean.get(name)) for name in columns), minutes))
    scenes = {job.config.data.datadir for job in jobs}
    if len(scenes) == len(jobs) > 1 and all(mean.get("psnr") is not None for mean in measured):
        values = [[mean.get(name) for mean in measured] for name in columns]
        means = [None if None in found else math.fsum(found) / len(found) for found in values]
        rows.append((f"mean of {len(jobs)}", "", "", *map(shown, means), ""))
    return text_table(rows)


def shown(psnr: float | None) -> str:
    return "-" if psnr is None else f"{psnr:.2f}"
