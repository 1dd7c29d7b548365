"""Cameras and points of photographs, by COLMAP (pycolmap), in a process of its own: it can be stopped at once, and what
ends COLMAP does not end us."""

import errno
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import NamedTuple

from infonerf.capture.photographs import Photograph, working_name
from infonerf.system.errors import InputError
from infonerf.system.logs import progress_bar

FEW = 5  # photographs that do not tell focal length and distortion well
GUESSED_FOCAL = 0.8  # of the longer side, where nothing is known: phones have 0.7 to 0.85
OTHER_GUESSES = (0.6, 1.2, 1.8)  # tried as well for few photographs, which end near where they start
BETTER = 1.03  # so many times the observations must another guess explain
MOST_EXHAUSTIVE = 60  # frames of a video of which all pairs are matched; of more, neighbours in time
MOST_THOROUGH = 20  # photographs of which a few that are missing are worth the thorough attempt
SEED = 0
MESSAGES = "messages.txt"  # what COLMAP and Python say in the other process
FULL = 2**20  # bytes that are free on a full disk, at most

HELP = ("more overlap helps (each place seen in three photographs, steps of 10 to 15 degrees), and more photographs, "
        "texture, light and sharpness; where the cameras are known, write them as transforms.json instead")  # fmt: skip


class Attempt(NamedTuple):
    """One way to go about it. relaxed: lower thresholds of what counts as a match of two photographs. thorough:
    features that bear a larger change of viewpoint, and several times the work."""

    name: str
    relaxed: bool
    thorough: bool


ATTEMPTS = (Attempt("usual thresholds", relaxed=False, thorough=False),
            Attempt("lower thresholds", relaxed=True, thorough=False),
            Attempt("lower thresholds and affine features", relaxed=True, thorough=True))  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What the other process needs. images: the folder of working copies. work: a folder for its own files, the model
    among them (`work / "model"`). sequential: match neighbours only."""

    images: Path
    work: Path
    photographs: Sequence[Photograph]
    sequential: bool


class Outcome(NamedTuple):
    """attempt: that which registered most photographs. models: how many photographs each of its separate models
    holds, the largest, which is kept, first."""

    attempt: str
    models: list[int]


def require_pycolmap() -> str:
    """Its version. Raises InputError where it is not installed."""
    try:
        import pycolmap
    except ImportError as error:
        raise InputError("make_scene.py needs pycolmap: pip install -r requirements-capture.txt") from error
    return pycolmap.__version__


def reconstruct(job: Job) -> Outcome:
    """Run COLMAP with progress bars. Raises InputError where it finds no two photographs that belong together."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work_apart, args=(job, sender), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which it inherits: Ctrl-C is ours, and we end it
    process.start()
    signal.signal(signal.SIGINT, handler)
    sender.close()
    try:
        outcome = follow(receiver)
        process.join()
    finally:
        process.kill()
    if outcome is None:
        if shutil.disk_usage(job.work).free < FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.work))
        raise InputError(f"COLMAP ended too early (status {process.exitcode}{last_message(job)}); where memory is "
                         "short, photographs of a smaller size help")  # fmt: skip
    if not outcome.models:
        raise InputError(f"no cameras found for {len(job.photographs)} photographs: {HELP}")
    return outcome


def follow(receiver: Connection) -> Outcome | None:
    """Show what the other process tells, until its outcome; None where it ends without one."""
    bar, database, table = None, None, None
    try:
        while True:
            if receiver.poll(0.2):
                message = receiver.recv()
                if isinstance(message, Outcome):
                    return message
                if isinstance(message, int):
                    bar.update(message)
                else:
                    label, total, database, table = message
                    if bar is not None:
                        bar.close()
                    bar = progress_bar(desc=label, total=total, leave=False)
            elif table:
                bar.update(max(0, rows(database, table) - bar.n))
    except EOFError:
        return None
    finally:
        if bar is not None:
            bar.close()


def rows(database: Path, table: str) -> int:
    """How many rows a table of COLMAP's database has; 0 while it cannot be asked."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    except sqlite3.Error:
        return 0


def last_message(job: Job) -> str:
    """What the other process said last, to be added to a line."""
    with suppress(OSError):
        lines = (job.work / MESSAGES).read_text(errors="replace").split("\n")
        return next((f": {line[:200]}" for line in reversed(lines) if line.strip()), "")
    return ""


# In the other process.


def work_apart(job: Job, sender: Connection) -> None:
    """What goes wrong here is said by the other process, which sees this one end."""
    Thread(target=end_with, args=(parent_process(),), daemon=True).start()
    with (job.work / MESSAGES).open("w") as file:
        os.dup2(file.fileno(), 2)
    sender.send(solve(job, sender))


def end_with(parent) -> None:
    """End this process when its parent does, however it does."""
    parent.join()
    os._exit(1)


def solve(job: Job, sender: Connection) -> Outcome:
    """Make attempts until all photographs are registered, and write the largest model of the best."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    pycolmap.set_random_seed(SEED)
    best, best_database, outcome = None, None, Outcome("", [])
    for attempt in ATTEMPTS:
        if attempt.thorough and best is not None and is_enough(best.num_reg_images(), len(job.photographs)):
            break
        database = job.work / f"{'thorough' if attempt.thorough else 'usual'}.db"
        if not database.exists():
            find_features(job, database, attempt, sender)
            match(job, database, attempt, sender)
        models = run_mapper(job, database, attempt, sender)
        if models and (best is None or models[0].num_reg_images() > best.num_reg_images()):
            outcome = Outcome(attempt.name, [model.num_reg_images() for model in models])
            best, best_database = models[0], database
        if best is not None and best.num_reg_images() == len(job.photographs):
            break
    if best is not None:
        (job.work / "model").mkdir()
        if len(job.photographs) <= FEW:
            best = with_tracks_of_two(job, best, best_database)
        best.write(job.work / "model")
    return outcome


def is_enough(registered: int, n: int) -> bool:
    """Whether the thorough attempt, of several times the work, can be spared: most of many are registered."""
    return n > MOST_THOROUGH and registered > n / 2


def find_features(job: Job, database: Path, attempt: Attempt, sender: Connection) -> None:
    """SIFT of all photographs, and a camera for each group that shares one."""
    import pycolmap

    sender.send((f"features ({attempt.name})", len(job.photographs), database, "descriptors"))
    options = pycolmap.FeatureExtractionOptions()
    options.sift.estimate_affine_shape = options.sift.domain_size_pooling = attempt.thorough
    pycolmap.Database.open(database).close()  # makes it
    groups: dict[tuple, list[int]] = {}
    for number, photograph in enumerate(job.photographs):
        groups.setdefault(photograph.camera, []).append(number)
    for numbers in groups.values():
        first = job.photographs[numbers[0]]
        reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL", default_focal_length_factor=GUESSED_FOCAL)
        if first.focal:
            reader.camera_params = f"{first.focal},{first.width / 2},{first.height / 2},0"
        pycolmap.import_images(database, job.images, pycolmap.CameraMode.SINGLE, [working_name(n) for n in numbers],
                               reader)  # fmt: skip
    pycolmap.extract_features(database, job.images, extraction_options=options, device=pycolmap.Device.cpu)


def match(job: Job, database: Path, attempt: Attempt, sender: Connection) -> None:
    """Matches of pairs of photographs, and of those which agree with one motion of a camera."""
    import pycolmap

    n = len(job.photographs)
    pairs = None if job.sequential else n * (n - 1) // 2
    sender.send((f"pairs ({attempt.name})", pairs, database, "two_view_geometries"))
    matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    if attempt.thorough:
        matching.guided_matching, matching.sift.max_ratio = True, 0.9
    run = pycolmap.match_sequential if job.sequential else pycolmap.match_exhaustive
    run(database, matching, verification_options=verification, device=pycolmap.Device.cpu)


def run_mapper(job: Job, database: Path, attempt: Attempt, sender: Connection) -> list:
    """Models of COLMAP's incremental mapper, of most photographs first. Of few photographs of unknown focal length,
    those from the guess of it that explains most."""
    import pycolmap

    options = mapper_options(job, database)
    options.triangulation.ignore_two_view_tracks = not (attempt.thorough and len(job.photographs) <= FEW)
    if attempt.relaxed:
        options.min_num_matches = 10
        options.mapper.init_min_num_inliers, options.mapper.init_min_tri_angle = 20, 4.0
        options.mapper.abs_pose_min_num_inliers, options.mapper.abs_pose_min_inlier_ratio = 12, 0.15
    few = len(job.photographs) <= FEW and any(photograph.focal is None for photograph in job.photographs)
    best: list = []
    for guess in (GUESSED_FOCAL, *OTHER_GUESSES) if few else (GUESSED_FOCAL,):
        sender.send((f"cameras ({attempt.name})", len(job.photographs), database, None))
        guess_focal(database, guess)
        with TemporaryDirectory(dir=job.work) as folder:
            models = pycolmap.incremental_mapping(database, job.images, folder, options,
                                                  initial_image_pair_callback=lambda: sender.send(2),
                                                  next_image_callback=lambda: sender.send(1))  # fmt: skip
        models = sorted(models.values(), key=explained, reverse=True)
        if models and (not best or is_better(explained(models[0]), explained(best[0]))):
            best = models
    return best


def explained(model) -> tuple[int, int]:
    """Photographs, and places in them, that a model explains."""
    return model.num_reg_images(), model.compute_num_observations()


def is_better(new: tuple[int, int], old: tuple[int, int]) -> bool:
    return new[0] > old[0] or (new[0] == old[0] and new[1] > BETTER * old[1])


def guess_focal(database: Path, guess: float) -> None:
    """Let cameras whose focal length is not known begin with that multiple of their longer side."""
    import pycolmap

    with closing(pycolmap.Database.open(database)) as opened:
        for camera in opened.read_all_cameras():
            if not camera.has_prior_focal_length:
                longer = max(camera.width, camera.height)
                camera.params = [guess * longer, camera.width / 2, camera.height / 2, *camera.params[3:]]
                opened.update_camera(camera)


def mapper_options(job: Job, database: Path):
    """Options of every attempt. Few photographs do not tell what they would be asked: their distortion is taken as
    none, and a focal length that is known stands."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions(min_model_size=2, random_seed=SEED)
    options.mapper.random_seed = options.triangulation.random_seed = SEED
    if len(job.photographs) <= FEW:
        options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = False
        with closing(pycolmap.Database.open(database)) as opened:
            known = {camera.camera_id for camera in opened.read_all_cameras() if camera.has_prior_focal_length}
        options.constant_cameras = options.mapper.constant_cameras = known
    return options


def with_tracks_of_two(job: Job, model, database: Path):
    """The model with points that only two photographs see as well, and its cameras adjusted to them. COLMAP leaves them
    out, and does well as long as it looks for cameras; of few photographs they are most of the points."""
    import pycolmap

    options = mapper_options(job, database)
    options.triangulation.ignore_two_view_tracks = False
    folder = job.work / "two"
    folder.mkdir()

    def triangulated():
        return pycolmap.triangulate_points(model, database, job.images, folder, clear_points=True, options=options)

    model = triangulated()
    adjustment = pycolmap.BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    adjustment.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    wanted = pycolmap.BundleAdjustmentConfig()
    for key in model.reg_image_ids():
        wanted.add_image(key)
    wanted.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(adjustment, wanted, model).solve()
    return triangulated()
