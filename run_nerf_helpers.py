"""From a Config to objects: what the scripts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from infonerf.command_line import run_config
from infonerf.config import PATHS, Config, DataConfig, LossesConfig, RenderingConfig, changed_since, has_networks_of
from infonerf.evaluation.perceptual import Lpips
from infonerf.evaluation.record import Record, append_result, is_in_results
from infonerf.evaluation.views import evaluate_views
from infonerf.fields.field import CoarseFine, Field
from infonerf.fields.nerf import Annealing, NeRF
from infonerf.fields.planes import Planes
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.groups import KNOWN, PATCH, SEEN, UNSEEN
from infonerf.rendering.occupancy import CELLS, Occupancy
from infonerf.rendering.pictures import render_path, video_cameras
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.camera_checks import with_checked_cameras
from infonerf.scene.cameras import Pixels
from infonerf.scene.fingerprint import fingerprint
from infonerf.scene.kinds import found_kind
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.normalise import require_same_world
from infonerf.scene.scene import Scene, bounds_of, with_depth_range, with_made_poses
from infonerf.scene.swept_depths import PLANE_SWEEP, swept_depths
from infonerf.scene.visual_hull import carved_cells
from infonerf.system.devices import has_bfloat16, rank_device
from infonerf.system.errors import InputError
from infonerf.system.files import make_folder
from infonerf.system.interrupt import Interrupt
from infonerf.system.logs import say
from infonerf.system.picture_folders import PictureFolder
from infonerf.system.ranks import Ranks
from infonerf.training import checkpoint
from infonerf.training.checkpoint_content import TO_LOOK_AT, TO_TRAIN
from infonerf.training.generators import create_generators
from infonerf.training.neighbours import MovedPose, NearPixel, Neighbourhood, RotatedPose
from infonerf.training.sampler import Crop, KnownPixels, RangeAnnealing, RaySampler, TrainingColours, central_crop
from infonerf.version import code
from infonerf.viewer.paths import cameras_of, moved, read_path
from load_blender import load_blender
from load_capture import load_capture
from load_dtu import load_dtu
from load_llff import load_llff
from loss import regularizers_of

CPU_BLOCK = 8192  # points whose activations stay near a CPU's caches
LOADERS = {"blender": load_blender, "capture": load_capture, "dtu": load_dtu, "llff": load_llff}


# The scene.


def load_scene(data: DataConfig) -> Scene:
    """The photographs and cameras that the options name. Raises InputError where they cannot be used."""
    kind = kind_of(data)
    if kind not in LOADERS:
        raise InputError(f"--dataset_type {kind}: not supported yet, expected {' or '.join(LOADERS)}")
    scene = LOADERS[kind](data)
    if data.near is not None or data.far is not None:
        scene = with_depth_range(scene, data.near, data.far)
    return with_made_poses(with_checked_cameras(scene), data.unseen_poses)


def sweep_photographs(config: Config, scene: Scene, device: torch.device) -> KnownDepths | None:
    """Known depths of a plane sweep, kept in the scene's folder."""
    return swept_depths(scene, Path(config.data.datadir) / PLANE_SWEEP, device)


def kind_of(data: DataConfig) -> str:
    """The kind of scene that is loaded."""
    return found_kind(data.datadir)[0] if data.dataset_type == "auto" else data.dataset_type


def require_alpha(scene: Scene, option: str) -> None:
    if scene.photographs.alpha is None:
        raise InputError(f"--{option}: the images of {scene.name} have no alpha, expected RGBA images")


# Networks and rendering.


def create_networks(config: Config, scene: Scene, device: torch.device, generator: torch.Generator) -> CoarseFine:
    """The coarse network and, with importance sampling, the fine one. Initialised on the CPU, so the
    same on every device. scene: planes fill its bounds."""
    options, encoded = config.field, config.field.i_embed == 0
    alike = {
        "multires": options.multires if encoded else None,
        "multires_views": options.multires_views if encoded else None,
        "use_viewdirs": options.use_viewdirs,
        "density_bias": options.density_bias,
        "generator": generator,
    }
    bounds = torch.as_tensor(bounds_of(scene), dtype=torch.float32, device=device)

    def network(depth: int, width: int) -> Field:
        if options.field == "planes":
            return Planes(bounds, options.planes_resolution, options.planes_components, depth, width,
                          tv=options.planes_tv, **alike)  # fmt: skip
        return NeRF(
            depth,
            width,
            output_ch=5 if config.sampling.N_importance else 4,
            device=device,
            multi_input=options.mi_mlp,
            annealing=Annealing(options.freq_start, options.freq_end_iter) if options.freq_end_iter else None,
            **alike,
        )

    coarse = network(options.netdepth, options.netwidth)
    fine = network(options.netdepth_fine, options.netwidth_fine) if config.sampling.N_importance else None
    return CoarseFine(coarse, fine)


def hidden_dtype(rendering: RenderingConfig, device: torch.device) -> torch.dtype | None:
    """Of the networks' hidden layers; None for that of their weights."""
    low = rendering.precision == "bf16" or (rendering.precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if low and not rendering.exact_dense else None


def create_occupancy(config: Config, scene: Scene, device: torch.device) -> Occupancy | None:
    """The grid of skip_empty, in which nothing is known to be empty yet but what the visual hull leaves out."""
    if not config.rendering.skip_empty:
        return None
    bounds, carved = bounds_of(scene), None
    if config.rendering.visual_hull:
        require_alpha(scene, "visual_hull")
        if scene.cameras.ndc:
            raise InputError(f"--visual_hull: scene {scene.name} is in NDC, expected --no_ndc")
        carved = carved_cells(scene, bounds, CELLS).reshape(-1)
        if carved.all():
            raise InputError(f"--visual_hull: no point within the bounds of {scene.name} is seen opaque by all its "
                             "training views, expected an object")
        carved = torch.from_numpy(carved).to(device)
    bounds = torch.as_tensor(bounds, dtype=torch.float32).to(device)
    return Occupancy(bounds, hidden_dtype(config.rendering, device), carved)


def block_size(options: RenderingConfig, device: torch.device) -> int:
    """How many points a network takes at a time."""
    return min(options.netchunk, CPU_BLOCK) if device.type == "cpu" else options.netchunk


def create_renderer(config: Config, scene: Scene, networks: CoarseFine) -> Renderer:
    """How the networks are trained; `for_pictures` of it, how they are looked at."""
    if config.sampling.lindisp and not scene.near:
        instead = " (NDC begins there and is linear in disparity as it is: --no_ndc)" if scene.cameras.ndc else ""
        raise InputError(f"--lindisp: found --near 0, expected more: there is no disparity at depth 0{instead}")
    options, device = config.rendering, networks.device
    if options.exact_dense:
        query = DenseQuery(options.netchunk)
    else:
        occupancy = create_occupancy(config, scene, device)
        query = SparseQuery(block_size(options, device), hidden_dtype(options, device), occupancy)
    sampling = Sampling(
        n_samples=config.sampling.N_samples,
        n_importance=config.sampling.N_importance,
        lindisp=config.sampling.lindisp,
        perturb=config.sampling.perturb > 0,
        noise_std=config.sampling.raw_noise_std,
    )
    return Renderer(networks, sampling, scene.white_background, query, options.chunk)


# The rays of a step.


def create_sampler(config: Config, scene: Scene, device: torch.device) -> RaySampler:
    """Decodes the training views, and no others."""
    batch, sampling, losses = config.batch, config.sampling, config.losses
    pools = {SEEN: (scene.cameras.at(scene.split.train).to(device), batch.N_rand)}
    if losses.n_unseen:
        pools[UNSEEN] = (scene.unseen_cameras().to(device), losses.n_unseen)
    known = known_pixels(scene) if losses.depth_prior_lambda else None
    check_counts(config, {group: cameras.sizes for group, (cameras, _) in pools.items()})
    wanted = {"random_bkgd": batch.random_bkgd, "carving_lambda": losses.carving_lambda}
    of_alpha = [name for name, value in wanted.items() if value]
    for name in of_alpha:
        require_alpha(scene, name)
    return RaySampler(
        pools,
        training_colours(scene, with_alpha=bool(of_alpha), device=device),
        batching=not batch.no_batching,
        neighbourhood=create_neighbourhood(losses),
        crop_fraction=batch.precrop_frac,
        crop_until=batch.precrop_iters,
        random_background=batch.random_bkgd,
        patches=losses.depth_smooth_lambda > 0,
        annealing=RangeAnnealing(sampling.range_start, sampling.range_end_iter) if sampling.range_end_iter else None,
        known=known and (known, losses.N_depth),
    )


def known_pixels(scene: Scene) -> KnownPixels | None:
    """The known depths of the training views that lie in the scene's range of depths; None where there are none."""
    known, train = scene.known_depths, scene.split.train
    if known is None:
        return None
    place = np.full(len(scene.view_names), -1)  # of each view among the training views
    place[list(train)] = np.arange(len(train))
    of_train = place[known.views] >= 0
    cameras, half = scene.cameras.at(train), scene.cameras.pixel_center
    columns = (place[known.views], known.rows - half, known.cols - half, known.depths, known.weights)
    camera, rows, cols, z, weights = (torch.from_numpy(column[of_train]) for column in columns)
    pixels = Pixels(camera, rows.double(), cols.double())
    depths = cameras.sample_depths(pixels, z.double())
    inside = (depths >= cameras.near) & (depths <= cameras.far)
    if not inside.any():
        return None
    pixels, depths, weights = Pixels(*(part[inside] for part in pixels)), depths[inside], weights[inside].double()
    return KnownPixels(pixels, depths, weights / weights.mean())


def check_counts(config: Config, sizes: dict[str, Sequence[tuple[int, int]]]) -> None:
    """Raise InputError where a step asks for more rays than the smallest image of a group has pixels, or for patches
    larger than it."""
    batch, losses = config.batch, config.losses
    cropping = batch.no_batching and batch.precrop_iters > 1  # steps are counted from 1
    where = "the central crop (precrop_frac)" if cropping else "an image"

    def areas(group: str) -> list[Crop]:
        return [central_crop(*size, batch.precrop_frac) if cropping else Crop(0, 0, *size) for size in sizes[group]]

    counts = [("N_rand", SEEN, batch.N_rand)]
    if losses.n_unseen and not losses.depth_smooth_lambda:  # patches may overlap
        counts.append(("N_entropy", UNSEEN, losses.n_unseen))
    for name, group, count in counts if batch.no_batching else ():
        fewest = min(map(len, areas(group)))
        if count > fewest:
            raise InputError(f"--{name} {count}: {where} has {fewest} pixels, expected no more rays than that")
    for area in areas(UNSEEN) if losses.depth_smooth_lambda else ():
        if min(area.height, area.width) < PATCH:
            raise InputError(f"--depth_smooth_lambda: {where} has {area.width} x {area.height} pixels, expected at "
                             f"least {PATCH} x {PATCH}")


def training_colours(scene: Scene, with_alpha: bool, device: torch.device) -> TrainingColours:
    """The colours, and the alphas, of all training views on the device."""
    sizes = [scene.size(view) for view in scene.split.train]
    counts = [height * width for height, width in sizes]
    rgb, alpha = torch.empty(sum(counts), 3), torch.empty(sum(counts)) if with_alpha else None
    for i, view in enumerate(scene.split.train):
        part = slice(sum(counts[:i]), sum(counts[: i + 1]))
        rgb[part] = torch.from_numpy(scene.photographs.image(view)).flatten(0, 1)
        if alpha is not None:
            alpha[part] = torch.from_numpy(scene.photographs.alpha(view)).flatten()
    return TrainingColours(rgb.to(device), None if alpha is None else alpha.to(device))


def create_neighbourhood(losses: LossesConfig) -> Neighbourhood | None:
    if not losses.smoothing:
        return None
    if losses.smooth_sampling_method == "near_pixel":
        return NearPixel(losses.smooth_pixel_range)
    if losses.near_c2w_type == "random_pos":
        return MovedPose(losses.near_c2w_trans)
    return RotatedPose(losses.near_c2w_rot)


# In words.


def described(config: Config, scene: Scene, networks: CoarseFine, n_held_out: int) -> list[str]:
    """A few lines on what a training starts with. n_held_out: views that early stopping measures."""
    device = networks.device
    split = scene.split
    train = " ".join(scene.view_names[view] for view in split.train[:8]) + (" ..." if len(split.train) > 8 else "")
    sizes = [sum(p.numel() for p in network.parameters()) for network in networks]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    known = known_pixels(scene) if config.losses.depth_prior_lambda else None
    terms = [loss.name for loss in regularizers_of(config.losses) if known or loss.groups != (KNOWN,)]
    lines = {}
    if config.data.dataset_type == "auto":
        kind, found = found_kind(config.data.datadir)
        lines["dataset:"] = f"{kind} (found {found})"
    lines |= {
        "scene": f"{scene.name} ({kind_of(config.data)}), {shown_sizes(scene)}, "
        f"near {scene.near:g}, far {scene.far:g}{' (NDC)' if scene.cameras.ndc else ''}, "
        f"{'white' if scene.white_background else 'black'} background",
        "views": f"{len(split.train)} to train on ({train}), {len(split.test)} to test on{unmeasured_note(scene)}",
        "networks": " + ".join(f"{size:,}" for size in sizes) + " parameters",
        "losses": " + ".join(["colour", *terms]),
        "run": f"{config.run.folder}, device {device} ({place}), "
        f"{'bfloat16' if hidden_dtype(config.rendering, device) else 'float32'}, seed {config.batch.seed}",
    }
    if config.losses.n_unseen:
        made = scene.made_poses
        lines["unseen"] = f"{len(split.unseen if made is None else made)} poses; {unseen_note(config, scene)}"
    if n_held_out:
        patience = config.stopping.patience
        until = f", until {patience} in a row bring no better one" if patience else ""
        lines["held out"] = f"{n_held_out} views, measured every {config.stopping.i_val} steps{until}"
    if config.rendering.skip_empty:
        low, high = (" ".join(f"{x:.3g}" for x in corner) for corner in bounds_of(scene))
        lines["bounds"] = f"{low} to {high}; space outside is left empty (skip_empty)"
    notes = list(scene.notes)
    if known:
        lines["depths"] = f"{len(known.depths):,} known, in {len(known.pixels.camera.unique())} of the training views"
    elif config.losses.depth_prior_lambda:
        notes.append(f"no known depths (depth_prior {config.data.depth_prior}) between near and far in the training "
                     "views; trained without the depth prior")
    return [f"{name:<10}{text}" for name, text in [*lines.items(), *(("note", note) for note in notes)]]


def shown_sizes(scene: Scene) -> str:
    """The sizes of all views, smallest first: "400 x 300", or "200 x 150 to 400 x 300"."""
    sizes = sorted(set(scene.cameras.sizes))
    return " to ".join(f"{width} x {height}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))


def unmeasured_note(scene: Scene) -> str:
    """That there are test views without photographs, and that there is nothing to measure."""
    n, nothing = len(scene.split.unmeasured), "" if scene.split.test else "; there is nothing to measure"
    return (f", {n} to render without measuring (no photograph)" if n else "") + nothing


def unseen_note(config: Config, scene: Scene) -> str:
    """Whether poses of test views are regularised (never their pixels), and why."""
    if scene.made_poses is not None:
        return "made from those of the training cameras; no view has them"
    test = {*scene.split.test, *scene.split.unmeasured}
    if not test:
        return "there are no test views"
    if not set(scene.split.unseen) & test:
        return "the test views' are not among them"
    why = "" if config.data.unseen_poses == "all" else ", as else only the training poses would be left"
    return f"the test views' (poses, not pixels) are among them{why}"


# A run that is there.


@dataclass(frozen=True)
class OpenedRun:
    """A trained run: its options, scene, and a renderer of the networks of a step, averaged where they were.

    interrupt: how what is done with it is stopped, and by which ranks it is done."""

    config: Config
    scene: Scene
    renderer: Renderer
    step: int
    interrupt: Interrupt = field(default_factory=Interrupt)


def find_checkpoint(
    config: Config, parts: Mapping[str, checkpoint.Part] | None = None
) -> checkpoint.Checkpoint | None:
    """The checkpoint to start from: ft_path, else the newest of the run that is not damaged. To render,
    ckpt_render_iter names another one. parts: what is trained: weights that do not fit it, though the file was written
    with the same options, are damaged."""
    run, looking = config.run, config.looking
    checks = TO_LOOK_AT if looking.instead_of_training else TO_TRAIN

    def take(path: Path) -> checkpoint.Checkpoint:
        found = checkpoint.read(path, checks)
        if parts and found.written_here and has_networks_of(found.content["options"], config):
            found.require_fit(parts)
        return found

    if run.no_reload:
        return None
    if run.ft_path:
        return checkpoint.read(run.ft_path, checks)
    if looking.ckpt_render_iter and looking.instead_of_training:
        return checkpoint.read(checkpoint.path_of(run.folder, looking.ckpt_render_iter), checks)
    return checkpoint.newest_readable(run.folder, say, take)


def open_run(folder: Path, **options) -> OpenedRun:
    """The run in a folder, wherever that lies now; `options` take the place of its own."""
    return open_checkpoint(run_config(folder).replace(**{"eval_only": True, "ckpt_render_iter": None} | options))


def load_device_and_scene(config: Config, ranks: Ranks) -> tuple[torch.device, Scene]:
    """What each rank has of its own."""
    with ranks.together():
        device, scene = rank_device(config.run.device, ranks), load_scene(config.data)
        found = found_by_rank(config, scene) if ranks.size > 1 else {}
    ranks.require_same(found)
    ranks.use(device)
    return device, scene


def found_by_rank(config: Config, scene: Scene) -> dict[str, object]:
    """What ranks must have in common, by what it is called: paths may differ."""
    options = {name: value for name, value in config.values().items() if name not in (*PATHS, "device")}
    return {"version of the program or of torch": code(), "list of options": options, "scene": fingerprint(scene)}


def open_checkpoint(config: Config, ranks: Ranks | None = None) -> OpenedRun:
    """The run that a config describes, to look at. Raises InputError where it has no checkpoint."""
    ranks = ranks or Ranks.alone()
    device, scene = load_device_and_scene(config, ranks)
    found = ranks.of_first(lambda: find_checkpoint(config))
    with ranks.together():
        return loaded_run(config, scene, device, found, Interrupt(ranks))


def loaded_run(
    config: Config, scene: Scene, device: torch.device, found: checkpoint.Checkpoint | None, interrupt: Interrupt
) -> OpenedRun:
    """The run with the networks of a checkpoint."""
    if found is None:
        raise InputError(f"{config.run.folder}: found no checkpoint to render, expected those of a trained run")
    require_same_world(scene, found.path.parent)
    networks = create_networks(config, scene, device, create_generators(config.batch.seed, device).weights)
    averaged = config.optimiser.ema_decay > 0 and found.has_average
    found.load(checkpoint.network_parts(networks, checkpoint.AVERAGE_KEYS if averaged else checkpoint.NETWORK_KEYS))
    networks.set_step(found.step)
    say_changes(found, config, scene)
    say(f"rendering {found.path}, step {found.step}, on {device}")
    renderer = create_renderer(config, scene, networks).for_pictures(networks)
    return OpenedRun(config, scene, renderer, found.step, interrupt)


def checkpoint_renderer(config: Config, scene: Scene, device: torch.device) -> Renderer:
    """Of the checkpoint that a config names, of a scene that is loaded already."""
    return loaded_run(config, scene, device, find_checkpoint(config), Interrupt()).renderer


def say_changes(found: checkpoint.Checkpoint, config: Config, scene: Scene) -> None:
    """Which options differ from those that a checkpoint of ours was trained with."""
    if not found.written_here:
        return
    before, data = found.content["options"], config.data
    for change in changed_since(before, config):
        say(change)
    if scene.photographs.alpha and "drop_alpha" not in before and not (data.white_bkgd or data.drop_alpha):
        say("changed since the checkpoint, which is of an older version: photographs are composited on black; "
            "--drop_alpha takes them as they were taken then")


# Evaluating a run.


def evaluate_run(run: OpenedRun, views: Sequence[int], kind: str, lpips: Lpips | None = None) -> Record:
    """Evaluate views of a run in basedir/expname/KIND_STEP, and add a line to basedir/results.csv.

    kind: testset, valset, renderonly_test or renderonly_train. lpips: as in `evaluate_views`.
    """
    config, renderer, ranks = run.config, run.renderer, run.interrupt.ranks
    folder = picture_folder(config, kind, run.step)
    ranks.of_first(lambda: make_folder(folder))
    low = hidden_dtype(config.rendering, renderer.networks.device)
    options = config.identity() | {"precision": "bf16" if low else "fp32"}  # what auto is here
    factor = max(config.looking.render_factor, 1)
    record, n_rendered = evaluate_views(
        renderer, run.scene, views, folder, step=run.step, kind=kind, options=options, factor=factor,
        interrupt=run.interrupt, lpips=lpips,
    )  # fmt: skip
    results, expname = Path(config.run.basedir) / "results.csv", config.run.expname
    if record.views and ranks.of_first(lambda: n_rendered or not is_in_results(results, record)):
        ranks.of_first(lambda: append_result(results, expname, record))
    say(f"{len(views)} views in {folder}, {len(views) - n_rendered} of them from before")
    if record.unmeasured:
        names = " ".join([*record.unmeasured][:4]) + (" ..." if len(record.unmeasured) > 4 else "")
        say(f"{len(record.unmeasured)} of them ({names}) are not measured, and not in the means")
    return record


def add_result(config: Config, step: int) -> Record:
    """The line of results.csv of test views that were evaluated, which could not be written then."""
    record = Record.read(picture_folder(config, "testset", step) / "metrics.json")
    append_result(Path(config.run.basedir) / "results.csv", config.run.expname, record)
    return record


def picture_folder(config: Config, kind: str, step: int) -> Path:
    """basedir/expname/KIND_STEP; pictures of 1/n of the size have a folder of their own."""
    return config.run.folder / PictureFolder(kind, step, max(config.looking.render_factor, 1)).name


def render_run_path(run: OpenedRun, kind: str) -> None:
    """The video of a run's path in basedir/expname/KIND_STEP, or that of a file (path), whose name its files take."""
    looking, scene, ranks = run.config.looking, run.scene, run.interrupt.ranks
    folder, factor = picture_folder(run.config, kind, run.step), max(looking.render_factor, 1)
    given = looking.path if looking.instead_of_training else None
    with ranks.together():
        path = moved(read_path(given), scene.world) if given else None
    ranks.of_first(lambda: make_folder(folder))
    if path is None:
        render_path(run.renderer, scene, video_cameras(scene), folder, factor, run.interrupt)
    else:
        cameras, prefix = cameras_of(path, scene.cameras), f"{Path(given).stem}_"
        render_path(run.renderer, scene, cameras, folder, factor, run.interrupt, path.fps, prefix)


def views_of(scene: Scene, kind: str, measured: bool = False) -> tuple[int, ...]:
    """The views of a kind of evaluation; measured: only those with photographs. Raises InputError where there are
    none."""
    split = scene.split
    test = split.test if measured else split.test + split.unmeasured
    views = {"testset": test, "valset": split.val, "renderonly_test": test, "renderonly_train": split.train}[kind]
    if not views:
        option = "render_test" if kind == "renderonly_test" else f"split {kind.removesuffix('set')}"
        which = " with photographs" if measured else ""
        raise InputError(f"--{option}: scene {scene.name} has no such views{which}, expected some")
    return views


def evaluate_checkpoint(
    config: Config, kinds: Sequence[str], ranks: Ranks | None = None, lpips: Lpips | None = None
) -> dict[str, Record]:
    """Evaluate a run's checkpoint without training it, or changing anything of it: kind -> record."""
    run = open_checkpoint(config, ranks)
    with run.interrupt.ranks.together():
        views = {kind: views_of(run.scene, kind) for kind in kinds if kind != "renderonly_path"}
    with run.interrupt:
        if "renderonly_path" in kinds:
            render_run_path(run, "renderonly_path")
        return {kind: evaluate_run(run, chosen, kind, lpips) for kind, chosen in views.items()}
