"""What a training was to make of its steps, and has not, as it was stopped, or as the disk was full."""

from pathlib import Path

from infonerf.config import Config
from infonerf.evaluation.record import Record, is_in_results
from infonerf.evaluation.views import pictures_are_there
from infonerf.rendering.pictures import videos_are_there
from infonerf.system.errors import InputError
from infonerf.system.logs import say
from infonerf.system.picture_folders import PictureFolder
from infonerf.training import checkpoint

TEST_VIEWS, RESULTS, VIDEO = "test views", "lines of results.csv", "video"
EVERY = {TEST_VIEWS: "i_testset", RESULTS: "i_testset", VIDEO: "i_video"}


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def overdue(config: Config, until: int, root: Path = Path()) -> list[tuple[int, str]]:
    """Of each checkpoint of a run up to a step: what of TEST_VIEWS, RESULTS and VIDEO was due, by these options and
    those that it was trained with, and is not there. root: what the run's paths are relative to."""
    folder, values = root / config.run.folder, config.values()
    found = []
    for step, path in checkpoint.saved(folder):
        lacking = [what for what in lacking_at(step, config, root) if due(step, values[EVERY[what]])]
        if 0 < step <= until and lacking:
            options = options_of(path)
            found += [(step, what) for what in lacking if due(step, options.get(EVERY[what], values[EVERY[what]]))]
    return found


def lacking_at(step: int, config: Config, root: Path) -> list[str]:
    """What is not there of all that could be due at a step."""
    run, factor = config.run, max(config.looking.render_factor, 1)
    pictures, video = (root / run.folder / PictureFolder(kind, step, factor).name for kind in ("testset", "path"))
    lacking = [] if videos_are_there(video) else [VIDEO]
    try:
        record = Record.read(pictures / "metrics.json")
    except InputError:
        return [TEST_VIEWS, *lacking]
    if record.views_missing or not pictures_are_there(pictures, record):
        return [TEST_VIEWS, *lacking]
    if record.views and not is_in_results(root / run.basedir / "results.csv", record):
        return [RESULTS, *lacking]
    return lacking


def options_of(path: Path) -> dict:
    """Those that a checkpoint was trained with; none where it cannot be read, which is said."""
    try:
        return checkpoint.read(path).content.get("options", {})
    except InputError as error:
        say(f"WARNING: {error}; what is not there of its step cannot be made up for")
        return dict.fromkeys(EVERY.values(), 0)
