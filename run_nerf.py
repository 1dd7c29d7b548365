"""Train InfoNeRF or NeRF on a few photographs: `python run_nerf.py --config FILE`.

From a config to a few-shot scene, the coarse and the fine network, the losses, and the loop over steps, with what
surrounds it: start or resume, progress, checkpoints, pictures, stopping in good order.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from infonerf.command_line import as_text, parse_options
from infonerf.config import Config
from infonerf.evaluation.estimates import draw_rays
from infonerf.evaluation.metrics import psnr_of_mse
from infonerf.evaluation.record import Record, records_table
from infonerf.fields.average import WeightAverage
from infonerf.fields.field import CoarseFine
from infonerf.rendering.compositing import Rendering
from infonerf.rendering.groups import SEEN, UNSEEN
from infonerf.rendering.occupancy import Occupancy
from infonerf.rendering.pictures import thumbnails
from infonerf.rendering.renderer import Draws, Renderer
from infonerf.scene.normalise import require_same_world, write_world
from infonerf.scene.scene import Scene
from infonerf.scene.swept_depths import write_picture
from infonerf.system.errors import MEMORY, InputError, exit_status, out_of_memory
from infonerf.system.files import atomic_file, make_folder, sole_owner
from infonerf.system.graphs import Capture, capture_cuda
from infonerf.system.interrupt import Interrupt, Stopped
from infonerf.system.logs import Log, complain, progress_bar, say, start_wandb
from infonerf.system.ranks import Ranks
from infonerf.training import checkpoint
from infonerf.training.early_stopping import HELD_OUT_RAYS, HeldOut, held_out_views
from infonerf.training.fixed_step import FixedStepper
from infonerf.training.generators import Generators, create_generators
from infonerf.training.overdue import RESULTS, TEST_VIEWS, VIDEO, due, overdue
from infonerf.training.sampler import RayBatch, RaySampler
from infonerf.training.terms import Loss, StepView, Terms, loss_terms, needed_groups, total_loss
from infonerf.viewer.frames import Source
from infonerf.viewer.server import require_viser
from infonerf.viewer.watch import Watch
from loss import losses_of, ray_entropy
from run_nerf_helpers import (
    OpenedRun,
    add_result,
    block_size,
    create_networks,
    create_renderer,
    create_sampler,
    described,
    evaluate_checkpoint,
    evaluate_run,
    find_checkpoint,
    hidden_dtype,
    load_device_and_scene,
    loaded_run,
    render_run_path,
    say_changes,
    sweep_photographs,
)

MAX_SKIPPED = 10  # attempts at one step
THUMBNAILS = "thumbnails"


class NonFiniteLoss(Exception):
    """A term of the loss, or the gradient, is infinite or NaN; the message names step and term."""


# A training: its state, and one step.


@dataclass
class Trainer:
    """What one step reads and changes.

    lrates: the learning rate of each of the optimizer's groups at the start. fixed: does the steps where it is there.
    step: completed updates. skipped: those that were not made, as their gradient was not finite. ranks: the processes
    that train together.
    """

    networks: CoarseFine
    optimizer: torch.optim.Optimizer
    sampler: RaySampler
    losses: list[Loss]
    renderer: Renderer
    generators: Generators
    lrates: list[float]
    lrate_decay: float
    average: WeightAverage | None = None
    held_out: HeldOut | None = None
    fixed: FixedStepper | None = None
    step: int = 0
    skipped: int = 0
    ranks: Ranks = field(default_factory=Ranks.alone)

    @property
    def occupancy(self) -> Occupancy | None:
        """The grid of what is empty, where the renderer has one."""
        return self.renderer.query.occupancy

    @property
    def stopped_early(self) -> bool:
        return self.held_out is not None and self.held_out.exhausted

    @property
    def parts(self) -> dict[str, checkpoint.Part]:
        """What is saved and resumed, by its entry in a checkpoint."""
        parts = {
            **checkpoint.network_parts(self.networks),
            "optimizer_state_dict": checkpoint.OptimizerPart(self.optimizer),
            "random_states": self.generators,
            "sampler": self.sampler,
        }
        if self.average:
            parts |= checkpoint.network_parts(self.average.networks, checkpoint.AVERAGE_KEYS)
        if self.occupancy:
            parts["occupancy"] = self.occupancy
        if self.held_out:
            parts["held_out"] = self.held_out
        return parts

    def picture_renderer(self) -> Renderer:
        """A renderer of the networks to look at: those of averaged weights, where there are such."""
        networks = self.average.networks if self.average else self.networks
        networks.set_step(self.step)
        return self.renderer.for_pictures(networks)

    def live_renderer(self) -> Renderer:
        """The same with the training's own grid, as it is: for pictures that are soon out of date."""
        networks = self.average.networks if self.average else self.networks
        networks.set_step(self.step)
        return replace(self.renderer, networks=networks)

    def train_step(self) -> tuple[Terms, dict[str, Rendering]]:
        """One update, with other rays where the gradient of the first ones is not finite; returns the terms of the
        loss and the renderings that it was made from. Raises NonFiniteLoss after MAX_SKIPPED attempts.

        Steps of fixed shapes go on with the next step's rays instead, and `check` raises."""
        if self.fixed:
            return self.fixed_step(self.fixed)
        failed = 0
        while True:
            try:
                return self.attempt_step()
            except NonFiniteLoss as error:
                failed, self.skipped = failed + 1, self.skipped + 1
                if failed == MAX_SKIPPED:
                    raise NonFiniteLoss(f"{error}, nor was it with other rays ({failed} attempts)") from error
                say(f"WARNING: {error}; no update is made of these rays")

    def attempt_step(self) -> tuple[Terms, dict[str, Rendering]]:
        batch = self.draw()
        draws = self.renderer.group_draws(batch.groups, self.generators.samples)
        terms, renderings = self.differentiated(batch, draws)
        self.optimizer.step()
        self.finish_step()
        if self.average:
            self.average.update(self.networks, self.step)
        return {name: (weight, value.detach()) for name, (weight, value) in terms.items()}, renderings

    def fixed_step(self, fixed: FixedStepper) -> tuple[Terms, dict[str, Rendering]]:
        batch = self.draw()
        draws = self.renderer.group_draws(batch.groups, self.generators.samples)
        terms, renderings = fixed.step(batch, draws, self.step + 1)
        self.finish_step()
        return terms, renderings

    def draw(self) -> RayBatch:
        """The rays of the next step, for networks that are set to it."""
        number = self.step + 1
        self.networks.set_step(number)
        return self.sampler.draw(number, needed_groups(self.losses, number), self.generators.pixels)

    def differentiated(self, batch: RayBatch, draws: Sequence[Draws]) -> tuple[Terms, dict[str, Rendering]]:
        """The terms of a batch's loss, by which the weights then have gradients, and the renderings that it was made
        from. Where the memory does not suffice, in smaller blocks from now on."""
        while True:
            self.optimizer.zero_grad()
            try:
                terms, renderings = self.attempt_gradient(batch, draws)
                break
            except (RuntimeError, MemoryError) as error:
                smaller = self.renderer.query.smaller() if out_of_memory(error) else None
                if not smaller:
                    raise
            self.renderer.query = smaller
            say(f"out of memory: a step evaluates {smaller.block} points at a time from now on (netchunk)")
        gradients = [p.grad for p in self.networks.parameters() if p.grad is not None]
        loss = total_loss(terms).detach()
        if not torch.isfinite(loss + torch.nn.utils.get_total_norm(gradients)):
            raise NonFiniteLoss(f"step {self.step + 1}: {not_finite(terms)} is not finite")
        return terms, renderings

    def attempt_gradient(self, batch: RayBatch, draws: Sequence[Draws]) -> tuple[Terms, dict[str, Rendering]]:
        renderings = self.renderer.groups_passes(batch.groups, draws)
        terms = loss_terms(StepView.of(renderings, batch, self.networks), self.losses, self.step + 1)
        total_loss(terms).backward()
        return terms, renderings

    def finish_step(self) -> None:
        """After an update: what belongs to the next one."""
        for group, initial in zip(self.optimizer.param_groups, self.lrates, strict=True):
            lrate = learning_rate(initial, self.lrate_decay, self.step)
            group["lr"] = group["lr"].fill_(lrate) if isinstance(group["lr"], torch.Tensor) else lrate
        self.step += 1
        if self.occupancy:
            self.occupancy.update(self.step, self.networks, self.generators.samples)

    def check(self) -> None:
        """Say which updates the device left out, since their gradient was not finite, and which nobody has heard of.
        Raises NonFiniteLoss where these were the last MAX_SKIPPED."""
        if not self.fixed:
            return
        skipped, in_a_row = int(self.fixed.skipped), int(self.fixed.in_a_row)
        if in_a_row >= MAX_SKIPPED:
            what = not_finite(self.fixed.current.terms)
            raise NonFiniteLoss(f"step {self.step}: {what} is not finite, nor was it in the steps before ({in_a_row})")
        if skipped > self.skipped:
            say(f"WARNING: {skipped - self.skipped} of the last steps made no update, as their gradient was not finite")
        self.skipped = skipped


def not_finite(terms: Terms) -> str:
    """Which terms of the loss are not finite; else it is the gradient."""
    bad = [f"loss term {name}" for name, (_, value) in terms.items() if not torch.isfinite(value)]
    return ", ".join(bad) or "the gradient"


def learning_rate(lrate: float, lrate_decay: float, step: int) -> float:
    """A tenth every `lrate_decay` thousand steps. After an update, `step` is the number of updates
    before it: the released code's convention."""
    return lrate * 0.1 ** (step / (lrate_decay * 1000))


def create_trainer(config: Config, scene: Scene, device: torch.device, ranks: Ranks | None = None) -> Trainer:
    generators = create_generators(config.batch.seed, device)
    networks = create_networks(config, scene, device, generators.weights)
    groups = networks.parameter_groups(config.optimiser.lrate)
    capture = capture_of(config, networks)
    trainer = Trainer(
        networks=networks,
        optimizer=create_optimizer(groups, device, capturable=capture is not None),
        sampler=create_sampler(config, scene, device),
        losses=losses_of(config.losses),
        renderer=create_renderer(config, scene, networks),
        generators=generators,
        lrates=[float(group["lr"]) for group in groups],
        lrate_decay=config.optimiser.lrate_decay,
        average=WeightAverage(networks, config.optimiser.ema_decay) if config.optimiser.ema_decay else None,
        held_out=create_held_out(config, scene, device) if config.stopping.i_val else None,
        ranks=ranks or Ranks.alone(),
    )
    if capture or trainer.ranks.size > 1:
        trainer.fixed = create_fixed_stepper(trainer, config, capture)
    return trainer


def capture_of(config: Config, networks: CoarseFine) -> Capture | None:
    """What captures a step, where one is captured: on CUDA, with fields that allow it."""
    options = config.rendering
    on_cuda = networks.device.type == "cuda" and options.cuda_graphs and not options.exact_dense
    if not on_cuda or not all(network.capturable for network in networks):
        return None
    return partial(capture_cuda, device=networks.device)


def create_optimizer(groups: list[dict], device: torch.device, capturable: bool) -> torch.optim.Adam:
    """Adam over groups, each with its learning rate. capturable: with what a captured step changes on the device."""
    if capturable:
        groups = [group | {"lr": torch.tensor(group["lr"], device=device)} for group in groups]
    fused = None if device.type == "mps" else True  # None: as torch chooses
    return torch.optim.Adam(groups, betas=(0.9, 0.999), fused=fused, capturable=capturable)


def create_fixed_stepper(trainer: Trainer, config: Config, capture: Capture | None) -> FixedStepper:
    options, device = config.rendering, trainer.networks.device
    return FixedStepper(
        networks=trainer.networks,
        renderer=trainer.renderer,
        losses=trainer.losses,
        optimizer=trainer.optimizer,
        average=trainer.average,
        dtype=None if options.exact_dense else hidden_dtype(options, device),
        block=block_size(options, device),
        capture=capture,
        ranks=trainer.ranks,
    )


def create_held_out(config: Config, scene: Scene, device: torch.device) -> HeldOut:
    views = held_out_views(scene, config.stopping.val_scene)
    return HeldOut(views, draw_rays(scene, views, HELD_OUT_RAYS, device), config.stopping.patience)


# Start or resume.


def resume(trainer: Trainer, found: checkpoint.Checkpoint, config: Config, scene: Scene) -> None:
    """Go on exactly where a checkpoint stands, as far as it says where that is."""
    parts = trainer.parts
    if found.path.resolve().parent != config.run.folder.resolve():  # of another run nothing is known here
        parts.pop("held_out", None)
    if trainer.average and not found.has_average:
        say(f"{found.path}: holds no averaged weights, starting the average from its weights")
        parts = {entry: part for entry, part in parts.items() if entry not in checkpoint.AVERAGE_KEYS.values()}
        found.load(checkpoint.network_parts(trainer.average.networks))
    missing = found.load(parts)
    trainer.step = found.step
    if "optimizer_state_dict" in missing:
        say(f"{found.path}: holds no optimizer state, starting it afresh")
    if "random_states" in missing:
        say(f"{found.path}: holds no generator state (a file of another program): the draws start from the seed")
    say_changes(found, config, scene)


# Saving.


def save(trainer: Trainer, config: Config) -> Path:
    """Write a checkpoint, the first rank's, then remove those that keep_checkpoints does not keep."""
    trainer.check()
    return trainer.ranks.of_first(lambda: write_checkpoint(trainer, config))


def write_checkpoint(trainer: Trainer, config: Config) -> Path:
    folder = config.run.folder
    write_options(config)
    path = checkpoint.save(folder, trainer.step, config.values(), trainer.parts)
    best = trainer.held_out.best_step if trainer.held_out else None
    checkpoint.remove_old(folder, trainer.step, config.saving.keep_checkpoints, spared=best)
    return path


def save_or_warn(trainer: Trainer, config: Config) -> None:
    """Save, before the end of the training: a disk that is full now may have room by then."""
    try:
        say(f"saved {save(trainer, config)}")
    except (OSError, InputError) as error:
        say(f"WARNING: step {trainer.step} is not saved: {error}; going on, to try again when the next is due")


def write_options(config: Config) -> None:
    """The run's options as a config file in its folder, which is made where it is not there."""
    content, path = as_text(config).encode(errors="surrogateescape"), make_folder(config.run.folder) / "args.txt"
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as file:
            file.write(content)


# The loop.


def train(
    trainer: Trainer, config: Config, scene: Scene, log: Log, interrupt: Interrupt,
    after_step: Callable[[int, Terms], bool] = lambda step, terms: False,
) -> None:
    """Steps until N_iters, or until held-out views gain nothing, with a line, scalars, checkpoints and test views when
    they are due. after_step: hears of each, and says whether that took time."""
    n_steps, saving = config.stopping.N_iters, config.saving
    with progress_bar(total=n_steps, initial=trainer.step, unit="step", desc="training") as bar:
        clock = time.perf_counter()
        while trainer.step < n_steps and not trainer.stopped_early:
            with interrupt.held():
                terms, renderings = trainer.train_step()
                n_rays = sum(len(rendering.fine.acc) for rendering in renderings.values())
                clock, start = time.perf_counter(), clock  # from step to step: CUDA runs behind the clock
                log_step(trainer, config, log, bar, terms, renderings, n_rays / (clock - start))
                intervals = (saving.i_weights, saving.i_testset, saving.i_video)
                to_save = any(due(trainer.step, every) for every in intervals)
                to_measure = due(trainer.step, config.stopping.i_val)
                if to_measure:
                    to_save |= measure_held_out(trainer, log)
                if trainer.step == n_steps or trainer.stopped_early:
                    say(f"saved {save(trainer, config)}")
                elif to_save:
                    save_or_warn(trainer, config)
            made = make_pictures(trainer, config, scene, log, interrupt)
            if after_step(trainer.step, terms) or made or to_measure:
                clock = time.perf_counter()


def measure_held_out(trainer: Trainer, log: Log) -> bool:
    """Measure the held-out rays, and log it. Whether it is the best so far, whose weights are to be kept."""
    held_out, step = trainer.held_out, trainer.step
    psnr = held_out.measure(trainer.picture_renderer(), step, trainer.ranks)
    best = "" if held_out.best_step == step else f"  (best {held_out.best:.2f} at step {held_out.best_step})"
    say(f"step {step}  held-out psnr {psnr:.2f}{best}")
    for write in (log.tensorboard, log.wandb):
        write(step, {"psnr/held_out": psnr})
    return held_out.best_step == step


def make_pictures(trainer: Trainer, config: Config, scene: Scene, log: Log, interrupt: Interrupt) -> bool:
    """The pictures that are due, if any: a validation view for TensorBoard, the test views, the path video. A test
    image that cannot be read, a full disk, or memory that suffices only to train may not end the training."""
    step, saving = trainer.step, config.saving
    intervals = {THUMBNAILS: saving.i_img, TEST_VIEWS: saving.i_testset, VIDEO: saving.i_video}
    wanted = [what for what, every in intervals.items() if due(step, every)]

    def run() -> OpenedRun:
        return OpenedRun(config, scene, trainer.picture_renderer(), step, interrupt)

    for what in wanted:
        tried(what, step, partial(make, what, run, log), trainer.ranks)
    return bool(wanted)


def make_up(
    missing: list[tuple[int, str]], config: Config, scene: Scene, device: torch.device, log: Log, interrupt: Interrupt
) -> bool:
    """Make what is overdue of steps that were saved. Whether all of it is there now."""
    ranks = interrupt.ranks

    def run(step: int) -> OpenedRun:
        found = ranks.of_first(lambda: checkpoint.read(checkpoint.path_of(config.run.folder, step)))
        with ranks.together():
            return loaded_run(config, scene, device, found, interrupt)

    def result(step: int) -> None:
        log_means(ranks.of_first(lambda: add_result(config, step)), log)

    all_made = True
    for step, what in missing:
        say(f"making up for what is not there: {what} of step {step}")
        work = partial(result, step) if what == RESULTS else partial(make, what, partial(run, step), log)
        all_made &= tried(what, step, work, ranks)
    return all_made


def make(what: str, opened: Callable[[], OpenedRun], log: Log) -> None:
    """Make pictures of a run, and log what belongs there."""
    run = opened()
    if what == THUMBNAILS:
        log.images(run.step, thumbnails(run.renderer, run.scene))
    elif what == VIDEO:
        render_run_path(run, "path")
    elif what == TEST_VIEWS and test_views(run.scene):
        record = evaluate_run(run, test_views(run.scene), "testset")
        say(*records_table({run.config.run.expname: record}).split("\n"))
        log_means(record, log)


def tried(what: str, step: int, work: Callable[[], None], ranks: Ranks) -> bool:
    """Whether work that may fail without ending the training went well; else it is said why."""
    try:
        work()
        return True
    except Exception as error:
        short = ranks.size == 1 and out_of_memory(error)  # of several ranks the others would wait
        if not short and not isinstance(error, (InputError, OSError)):
            raise
        say(f"WARNING: step {step}: not all {what} were made: {MEMORY if short else error}")
        return False


def test_views(scene: Scene) -> tuple[int, ...]:
    return scene.split.test + scene.split.unmeasured


def log_means(record: Record, log: Log) -> None:
    means = {f"test/{name}": value for name, value in record.mean.items() if value is not None}
    for write in (log.tensorboard, log.wandb):
        write(record.step, means)


def log_step(trainer: Trainer, config: Config, log: Log, bar, terms: Terms, renderings: dict, rate: float) -> None:
    """The progress bar; a line and scalars when they are due. rate: rays a second."""
    step = trainer.step
    to_wandb = log.wandb_run is not None and due(step, config.saving.i_wandb)
    to_print = due(step, config.saving.i_print)
    if to_print or (config.saving.wandb and due(step, config.saving.i_wandb)):
        trainer.check()  # on all ranks alike
    bar_is_due = not bar.disable and time.time() - bar.last_print_t >= bar.mininterval  # disabled: TQDM_DISABLE=1
    bar_is_due |= step == config.stopping.N_iters
    if to_wandb or to_print or bar_is_due:  # else nobody sees the numbers, and a GPU need not be waited for
        loss, psnr = float(total_loss(terms)), psnr_of_mse(float(terms["colour_fine"][1]))
        bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{psnr:.2f}", rays=f"{rate:.0f}/s", refresh=False)
    bar.update()
    if not to_wandb and not to_print:
        return
    scalars = scalars_of(trainer, terms, renderings, config.losses.entropy_acc_threshold, rate)
    if to_wandb:
        log.wandb(step, scalars)
    if to_print:
        log.tensorboard(step, scalars)
        parts = "  ".join(f"{name} {float(value):.4g}" for name, (_, value) in terms.items())
        say(f"step {step}  loss {loss:.4f}  psnr {psnr:.2f}  {parts}  {rate:.0f} rays/s")
        for which in empty_passes(renderings[SEEN]):
            say(f"WARNING: the {which} network has density nowhere on this step's rays, hence no gradient; if this "
                "warning stays, it is stuck at a bad start: start again with another --seed")


def scalars_of(trainer: Trainer, terms: Terms, renderings: dict, threshold: float, rays_per_second: float) -> dict:
    """What TensorBoard shows of a step."""
    scalars = {"loss/total": float(total_loss(terms))}
    for name, (weight, value) in terms.items():
        scalars[f"loss/{name}"] = float(value)
        scalars[f"loss_weighted/{name}"] = weight * float(value)
    for which in ("fine", "coarse"):
        if f"colour_{which}" in terms:
            scalars[f"psnr/{which}"] = psnr_of_mse(float(terms[f"colour_{which}"][1]))
    if UNSEEN in renderings:
        passing = renderings[UNSEEN].fine.acc > threshold
        scalars["entropy/unseen_rays_passing_mask"] = float(passing.float().mean())
    scalars["skipped_updates"] = trainer.skipped
    scalars["learning_rate"] = float(trainer.optimizer.param_groups[0]["lr"])
    scalars["rays_per_second"] = rays_per_second
    return scalars


def empty_passes(rendering: Rendering) -> list[str]:
    """The passes that see nothing at all."""
    passes = rendering._asdict().items()
    return [which for which, composite in passes if composite is not None and not composite.acc.any()]


# The script.


def run_rendering(config: Config, ranks: Ranks) -> int:
    """render_only and eval_only: nothing is trained, no checkpoint is written."""
    looking = config.looking
    if looking.eval_only:
        kinds = ["testset"]
    else:
        chosen = {"test": looking.render_test, "train": looking.render_train, "path": looking.render_mypath}
        kinds = [f"renderonly_{which}" for which, wanted in chosen.items() if wanted] or ["renderonly_test"]
    records = evaluate_checkpoint(config, kinds, ranks)
    if records:
        table = records_table({f"{config.run.expname} {kind}": record for kind, record in records.items()})
        say(*table.split("\n"))
    return 0


def run_training(config: Config, argv: list[str], ranks: Ranks) -> int:
    if config.looking.view:
        with ranks.together():
            require_viser()
    device, scene = load_device_and_scene(config, ranks)
    if config.losses.depth_prior_lambda and config.data.depth_prior == "sweep":
        known = ranks.of_first(lambda: sweep_photographs(config, scene, device))
        scene = replace(scene, known_depths=known)
    with ranks.together():
        trainer = create_trainer(config, scene, device, ranks)
    n_held_out = len(trainer.held_out.views) if trainer.held_out else 0
    for line in described(config, scene, trainer.networks, n_held_out):
        say(line)
    folder = config.run.folder
    if ranks.size > 1:
        say(f"ranks     {ranks.size}, whose files are written on {platform.node()}")
        check_later_elsewhere(config, ranks)
    newest, found = ranks.of_first(lambda: (checkpoint.newest(folder), find_checkpoint(config, trainer.parts)))
    if found:
        with ranks.together():
            require_same_world(scene, found.path.parent)
            resume(trainer, found, config, scene)
        say(f"going on from {found.path}, step {trainer.step}")
    finished = trainer.step >= config.stopping.N_iters or trainer.stopped_early
    missing = ranks.of_first(lambda: overdue(config, trainer.step))
    missing = [(step, what) for step, what in missing if what != TEST_VIEWS or test_views(scene)]
    if finished and not missing:
        early = ", where the training was stopped early" if trainer.stopped_early else ""
        say(f"nothing to do: step {trainer.step} of N_iters {config.stopping.N_iters} is reached{early}")
        say_best(trainer, folder)
        return 0
    with ExitStack() as owned:
        ranks.of_first(lambda: own_folder(folder, newest, owned))
        return train_in_folder(trainer, config, scene, argv, missing)


def check_later_elsewhere(config: Config, ranks: Ranks) -> None:
    """Raise InputError where the first rank would go on from an older checkpoint of the run than another rank sees, on
    the disk of another machine."""
    if config.run.no_reload or config.run.ft_path:
        return
    saved = checkpoint.saved(config.run.folder)
    newest = saved[-1][0] if saved else 0
    latest = ranks.agree(newest)
    with ranks.together():
        if ranks.first and latest > newest:
            raise InputError(f"{config.run.folder}: found step {newest} on {platform.node()}, which is to write, and "
                             f"step {latest} on another machine, expected the later one there (or a shared folder)")


def own_folder(folder: Path, newest: Path | None, owned: ExitStack) -> None:
    """Own a run's folder, whose newest checkpoint was `newest`, until the end of `owned`."""
    owned.enter_context(sole_owner(make_folder(folder)))
    if checkpoint.newest(folder) != newest:
        raise InputError(f"{folder}: another process has just trained there; the same command goes on from it")


def train_in_folder(
    trainer: Trainer, config: Config, scene: Scene, argv: list[str], missing: list[tuple[int, str]]
) -> int:
    """Train a run whose folder no other process writes to, once what is missing of earlier steps is made up for.
    Returns the exit status."""
    folder, ranks, begun, wandb_run = config.run.folder, trainer.ranks, trainer.step, None
    ranks.of_first(lambda: prepare_folder(config, scene, trainer.step))
    if config.saving.wandb and ranks.first:
        wandb_run = start_wandb(config.run.expname, config.saving.wandb_group, config.values(), folder)
    watch = open_watch(trainer, config, scene) if config.looking.view and ranks.first else None
    log = Log(folder, trainer.step, wandb_run)
    try:
        with Interrupt(ranks) as interrupt:
            try:
                all_made = make_up(missing, config, scene, trainer.networks.device, log, interrupt)
                train(trainer, config, scene, log, interrupt, *([watch.after_step] if watch else []))
            except Stopped as stopped:
                interrupt.hold_on()
                say(f"{stopped}: saved {save(trainer, config)}; to go on:", f"  {resume_command(config, argv, ranks)}")
                return stopped.status
    except NonFiniteLoss as error:
        newest = checkpoint.newest(folder)
        kept = f"the last checkpoint stands: {newest}" if newest else "no checkpoint was saved"
        complain(f"run_nerf.py: {error}; {kept}")
        return 1
    finally:
        log.close()
        if watch:
            watch.close()
    say_best(trainer, folder)
    early = ", stopped early" if trainer.stopped_early else ""
    say(f"done: {trainer.step} steps{early}, {folder}")
    return 0 if all_made or trainer.step > begun else 1


def open_watch(trainer: Trainer, config: Config, scene: Scene) -> Watch:
    """The page beside a training, which changes none of its numbers."""

    def source() -> Source:
        return Source(trainer.live_renderer(), scene.cameras)

    run, n_steps, alone = config.run, config.stopping.N_iters, trainer.ranks.size == 1
    return Watch(run.expname, run.folder, scene, source, ray_entropy, n_steps, alone)


def say_best(trainer: Trainer, folder: Path) -> None:
    """Where the held-out views were best, and how to evaluate the weights of that step, if they are there."""
    if not trainer.held_out or not trainer.held_out.best_step:
        return
    best, step = trainer.held_out.best, trainer.held_out.best_step
    command = shlex.join(["python", "evaluate.py", str(folder), "--step", str(step)])
    found = checkpoint.path_of(folder, step).is_file()
    how = f"to evaluate that one: {command}" if found else "its checkpoint is not there"
    say(f"the held-out PSNR was best, {best:.2f}, at step {step}; {how}")


def prepare_folder(config: Config, scene: Scene, step: int) -> None:
    """The first thing that is written: the run's folder, its options, as a config file, its scene's world, and how
    depths were found in its photographs."""
    folder = config.run.folder
    if (folder / "args.txt").is_dir():
        raise InputError(f"{folder}/args.txt: found a folder, expected the options of a run, or nothing there")
    write_options(config)
    write_world(scene, folder)
    write_picture(scene.known_depths, folder)
    for path in folder.glob("*.tmp"):  # of a run that was killed
        path.unlink(missing_ok=True)
    aside = checkpoint.set_aside(folder, step)
    if aside:
        say(f"checkpoints and pictures later than step {step} are now in {aside}")


def resume_command(config: Config, argv: list[str], ranks: Ranks) -> str:
    """The command that goes on from the newest checkpoint of this run."""
    words = [*ranks.launcher, sys.argv[0], *argv]
    if config.run.no_reload:
        words += ["--no_reload", "False"]
    if config.run.ft_path:
        words += ["--ft_path", str(checkpoint.newest(config.run.folder))]
    return shlex.join(words)


def run(argv: list[str]) -> int:
    with Ranks.from_environment() as ranks:
        with ranks.together():
            config, notes = parse_options(argv)
        for note in notes:
            say(note)
        if config.looking.instead_of_training:
            return run_rendering(config, ranks)
        return run_training(config, argv, ranks)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done; 1 a loss that is not finite, or a system that fails (a full disk), or pictures that a
    finished run lacks cannot be made; 2 a file or option that cannot be used, or too little memory for it; 130, 143 or
    129 stopped."""
    return exit_status("run_nerf.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
