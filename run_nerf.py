"""Train InfoNeRF or NeRF on a few photographs: `python run_nerf.py --config FILE`.

The loop, and what surrounds it: start or resume, progress, checkpoints, stopping in good order.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import run_nerf_helpers as build
from evaluate import evaluate_checkpoint, evaluate_run, render_run_path, table
from infonerf.command_line import as_config, parse_options
from infonerf.evaluation.metrics import psnr_of_mse
from infonerf.evaluation.ray_psnr import draw_rays
from infonerf.fields.average import WeightAverage
from infonerf.fields.nerf import Networks, Query, Sampling, render_groups
from infonerf.rendering.occupancy import Occupancy
from infonerf.rendering.pictures import make_renderer, thumbnails
from infonerf.scene.scene import Scene, bounds_of
from infonerf.system.errors import InputError, exit_status
from infonerf.system.files import atomic_file, make_folder, sole_owner
from infonerf.system.interrupt import Interrupt, Stopped
from infonerf.system.logs import Log, progress_bar, say, start_wandb
from infonerf.training import checkpoint
from infonerf.training.early_stopping import HELD_OUT_RAYS, HeldOut, held_out_views
from infonerf.training.sampler import SEEN, UNSEEN, RaySampler
from loss import Regularizer, loss_terms, needed_groups, total_loss

MAX_SKIPPED = 10  # attempts at one step


class NonFiniteLoss(Exception):
    """A term of the loss, or the gradient, is infinite or NaN; the message names step and term."""


@dataclass
class Trainer:
    """What one step reads and changes. `step`: completed updates. `skipped`: those that were not made, as their
    gradient was not finite."""

    networks: Networks
    optimizer: torch.optim.Optimizer
    sampler: RaySampler
    regularizers: list[Regularizer]
    sampling: Sampling
    generators: build.Generators
    chunk: int
    query: Query
    lrate: float
    lrate_decay: float
    occupancy: Occupancy | None = None
    average: WeightAverage | None = None
    held_out: HeldOut | None = None
    step: int = 0
    skipped: int = 0

    @property
    def rendered(self) -> Networks:
        """The networks to look at: those of averaged weights, where there are such, with the step's frequencies."""
        if self.average is None:
            return self.networks
        self.average.networks.set_step(self.step)
        return self.average.networks

    @property
    def stopped_early(self) -> bool:
        return self.held_out is not None and self.held_out.exhausted

    def train_step(self) -> tuple[dict, dict]:
        """One update, with other rays where the gradient of the first ones is not finite; returns the terms of the
        loss and the renderings that it was made from. Raises NonFiniteLoss after MAX_SKIPPED attempts."""
        failed = 0
        while True:
            try:
                return self.attempt_step()
            except NonFiniteLoss as error:
                failed, self.skipped = failed + 1, self.skipped + 1
                if failed == MAX_SKIPPED:
                    raise NonFiniteLoss(f"{error}, nor was it with other rays ({failed} attempts)") from error
                say(f"WARNING: {error}; no update is made of these rays")

    def attempt_step(self) -> tuple[dict, dict]:
        number = self.step + 1
        self.networks.set_step(number)
        groups = needed_groups(self.regularizers, number)
        batch = self.sampler.draw(number, groups, self.generators.pixels)
        renderings = render_groups(
            self.networks, batch.groups, self.sampling, self.generators.samples, self.chunk, self.query
        )
        terms = loss_terms(
            renderings, batch.target, self.regularizers, number, batch.alpha, batch.background
        )
        self.update(terms)
        if self.average:
            self.average.update(self.networks, self.step)
        if self.occupancy:
            self.occupancy.update(self.step, self.networks, self.generators.samples)
        return {name: (weight, value.detach()) for name, (weight, value) in terms.items()}, renderings

    def update(self, terms: dict) -> None:
        loss = total_loss(terms)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.networks.parameters() if p.grad is not None]
        if not torch.isfinite(loss.detach() + torch.nn.utils.get_total_norm(gradients)):
            bad = [f"loss term {name}" for name, (_, value) in terms.items() if not torch.isfinite(value)]
            raise NonFiniteLoss(f"step {self.step + 1}: {', '.join(bad) or 'the gradient'} is not finite")
        self.optimizer.step()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.lrate, self.lrate_decay, self.step)
        self.step += 1


def learning_rate(lrate: float, lrate_decay: float, step: int) -> float:
    """A tenth every `lrate_decay` thousand steps. After an update, `step` is the number of updates
    before it: the released code's convention."""
    return lrate * 0.1 ** (step / (lrate_decay * 1000))


def make_trainer(args: argparse.Namespace, scene: Scene, device: torch.device) -> Trainer:
    generators = build.build_generators(args.seed, device)
    networks = build.build_networks(args, device, generators.weights)
    occupancy = build.build_occupancy(args, scene, device)
    average = None
    if args.ema_decay:
        average = WeightAverage(build.build_networks(args, device, torch.Generator()), networks, args.ema_decay)
    return Trainer(
        networks=networks,
        optimizer=torch.optim.Adam(
            networks.parameters(), lr=args.lrate, betas=(0.9, 0.999), fused=device.type in ("cpu", "cuda") or None
        ),
        sampler=build.build_sampler(args, scene, device),
        regularizers=build.build_regularizers(args, scene),
        sampling=build.build_sampling(args),
        generators=generators,
        chunk=args.chunk,
        query=build.build_query(args, device, occupancy),
        lrate=args.lrate,
        lrate_decay=args.lrate_decay,
        occupancy=occupancy,
        average=average,
        held_out=make_held_out(args, scene, device) if args.i_val else None,
    )


def make_held_out(args: argparse.Namespace, scene: Scene, device: torch.device) -> HeldOut:
    views = held_out_views(scene, args.val_scene)
    return HeldOut(views, draw_rays(scene, views, HELD_OUT_RAYS, args.pixel_center, device), args.patience)


def resume(trainer: Trainer, found: checkpoint.Checkpoint, args: argparse.Namespace) -> None:
    """Go on exactly where a checkpoint stands, as far as it says where that is."""
    checkpoint.load_networks(found, trainer.networks)
    if trainer.average:
        checkpoint.load_networks(found, trainer.average.networks, averaged=True)
        if not checkpoint.has_average(found):
            say(f"{found.path}: holds no averaged weights, starting the average from its weights")
    if not checkpoint.load_optimizer(found, trainer.optimizer):
        say(f"{found.path}: holds no optimizer state, starting it afresh")
    trainer.step = found.step
    if not found.ours:
        say(f"{found.path}: holds no generator state (a file of another program): the draws start from the seed")
        return
    try:
        trainer.sampler.load_state_dict(found.content["sampler"])
        same_device = trainer.generators.load_state_dict(found.content["random_states"])
        if trainer.occupancy and "occupancy" in found.content:
            trainer.occupancy.load_state_dict(found.content["occupancy"])
        own = found.path.resolve().parent == build.run_folder(args).resolve()  # of another run nothing is known here
        if trainer.held_out and own and "held_out" in found.content:
            trainer.held_out.load_state_dict(found.content["held_out"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        fault = f"its generator, occupancy or held-out state cannot be used ({error})"
        raise InputError(f"{found.path}: {fault}") from error
    if not same_device:
        say(f"{found.path}: was trained on another kind of device: the jitter of samples starts from the seed")
    for change in build.changed_options(found, args):
        say(change)


def describe(args: argparse.Namespace, scene: Scene, trainer: Trainer, device: torch.device) -> None:
    """A few lines on what was loaded."""
    train = " ".join(scene.view_names[view] for view in scene.train[:8]) + (" ..." if len(scene.train) > 8 else "")
    sizes = [sum(p.numel() for p in network.parameters()) for network in trainer.networks if network is not None]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    terms = [regularizer.name for regularizer in trainer.regularizers]
    lines = {
        "scene": f"{scene.name} ({args.dataset_type}), {scene.width} x {scene.height}, "
        f"near {scene.near:g}, far {scene.far:g}, {'white' if scene.white_background else 'black'} background",
        "views": f"{len(scene.train)} to train on ({train}), {len(scene.test)} to test on",
        "networks": " + ".join(f"{size:,}" for size in sizes) + " parameters",
        "losses": " + ".join(["colour", *terms]),
        "run": f"{build.run_folder(args)}, device {device} ({place}), "
        f"{'bfloat16' if build.matmul_dtype(args, device) else 'float32'}, seed {args.seed}",
    }
    if build.has_unseen(args):
        made = scene.made_poses
        lines["unseen"] = f"{len(scene.unseen if made is None else made)} poses; {unseen_note(args, scene)}"
    if trainer.held_out:
        until = f", until {args.patience} in a row bring no better one" if args.patience else ""
        lines["held out"] = f"{len(trainer.held_out.views)} views, measured every {args.i_val} steps{until}"
    if args.skip_empty:
        low, high = (" ".join(f"{x:.3g}" for x in corner) for corner in bounds_of(scene))
        lines["bounds"] = f"{low} to {high}; space outside is left empty (skip_empty)"
    for name, text in [*lines.items(), *(("note", note) for note in scene.notes)]:
        say(f"{name:<10}{text}")


def unseen_note(args: argparse.Namespace, scene: Scene) -> str:
    """Whether poses of test views are regularised (never their pixels), and why."""
    if scene.made_poses is not None:
        return "made from those of the training cameras; no view has them"
    if not set(scene.unseen) & set(scene.test):
        return "the test views' are not among them"
    why = "" if args.unseen_poses == "all" else ", as else only the training poses would be left"
    return f"the test views' (poses, not pixels) are among them{why}"


def scalars_of(trainer: Trainer, terms: dict, renderings: dict, threshold: float, rays_per_second: float) -> dict:
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
    scalars["learning_rate"] = trainer.optimizer.param_groups[0]["lr"]
    scalars["rays_per_second"] = rays_per_second
    return scalars


def save_or_warn(trainer: Trainer, args: argparse.Namespace) -> None:
    """Save, before the end of the training: a disk that is full now may have room by then."""
    try:
        say(f"saved {save(trainer, args)}")
    except (OSError, InputError) as error:
        say(f"WARNING: step {trainer.step} is not saved: {error}; going on, to try again when the next is due")


def save(trainer: Trainer, args: argparse.Namespace) -> Path:
    """Write a checkpoint, then remove those that keep_checkpoints does not keep."""
    folder = build.run_folder(args)
    write_options(args)
    path = checkpoint.save(
        folder,
        trainer.step,
        trainer.networks,
        trainer.optimizer,
        options=vars(args),
        random_states=trainer.generators.state_dict(),
        sampler=trainer.sampler.state_dict(),
        occupancy=trainer.occupancy.state_dict() if trainer.occupancy else None,
        average=trainer.average.networks if trainer.average else None,
        held_out=trainer.held_out.state_dict() if trainer.held_out else None,
    )
    best = trainer.held_out.best_step if trainer.held_out else None
    checkpoint.remove_old(folder, trainer.step, args.keep_checkpoints, spared=best)
    return path


def write_options(args: argparse.Namespace) -> None:
    """The run's options as a config file in its folder, which is made where it is not there."""
    content, path = as_config(args).encode(), make_folder(build.run_folder(args)) / "args.txt"
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as file:
            file.write(content)


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def train(trainer: Trainer, args: argparse.Namespace, scene: Scene, log: Log, interrupt: Interrupt) -> None:
    """Steps until N_iters, or until held-out views gain nothing, with a line, scalars, checkpoints and test views when
    they are due."""
    with progress_bar(total=args.N_iters, initial=trainer.step, unit="step", desc="training") as bar:
        clock = time.perf_counter()
        while trainer.step < args.N_iters and not trainer.stopped_early:
            with interrupt.held():
                terms, renderings = trainer.train_step()
                n_rays = sum(len(rendering.fine.acc) for rendering in renderings.values())
                clock, start = time.perf_counter(), clock  # from step to step: CUDA runs behind the clock
                report(trainer, args, log, bar, terms, renderings, n_rays / (clock - start))
                saving = any(due(trainer.step, every) for every in (args.i_weights, args.i_testset, args.i_video))
                measured = due(trainer.step, args.i_val)
                if measured:
                    saving |= measure_held_out(trainer, args, scene, log)
                if trainer.step == args.N_iters or trainer.stopped_early:
                    say(f"saved {save(trainer, args)}")
                elif saving:
                    save_or_warn(trainer, args)
            if look(trainer.rendered, args, scene, trainer.step, log) or measured:
                clock = time.perf_counter()


def measure_held_out(trainer: Trainer, args: argparse.Namespace, scene: Scene, log: Log) -> bool:
    """Measure the held-out rays, and log it. Whether it is the best so far, whose weights are to be kept."""
    held_out, step = trainer.held_out, trainer.step
    try:
        psnr = held_out.measure(make_renderer(args, trainer.rendered, scene), step)
    except (InputError, OSError) as error:  # the hull looks at the photographs again
        say(f"WARNING: step {step}: the held-out rays were not measured: {error}")
        return False
    best = "" if held_out.best_step == step else f"  (best {held_out.best:.2f} at step {held_out.best_step})"
    say(f"step {step}  held-out psnr {psnr:.2f}{best}")
    for write in (log.tensorboard, log.wandb):
        write(step, {"psnr/held_out": psnr})
    return held_out.best_step == step


def look(networks: Networks, args: argparse.Namespace, scene: Scene, step: int, log: Log) -> bool:
    """The pictures that are due, if any: a validation view for TensorBoard, the test views, the path video. Neither a
    test image that cannot be read nor a full disk may end the training."""
    pictures = {
        "thumbnails": (args.i_img, lambda: log.images(step, thumbnails(args, networks, scene))),
        "test views": (args.i_testset, lambda: test(networks, args, scene, step, log)),
        "video": (args.i_video, lambda: render_run_path(args, networks, scene, step, "path")),
    }
    wanted = {name: make for name, (every, make) in pictures.items() if due(step, every)}
    for name, make in wanted.items():
        try:
            make()
        except (InputError, OSError) as error:
            say(f"WARNING: step {step}: not all {name} were made: {error}")
    return bool(wanted)


def test(networks: Networks, args: argparse.Namespace, scene: Scene, step: int, log: Log) -> None:
    """Evaluate the test views, and log the means."""
    record = evaluate_run(args, networks, scene, step, scene.test, "testset")
    say(table({args.expname: record}))
    means = {f"test/{name}": value for name, value in record["mean"].items() if value is not None}
    log.tensorboard(step, means)
    log.wandb(step, means)


def report(trainer: Trainer, args: argparse.Namespace, log: Log, bar, terms, renderings, rate: float) -> None:
    """The progress bar; a line and scalars when they are due."""
    step = trainer.step
    to_wandb, to_print = log.wandb_run is not None and due(step, args.i_wandb), due(step, args.i_print)
    bar_is_due = step == args.N_iters or time.time() - bar.last_print_t >= bar.mininterval
    if to_wandb or to_print or bar_is_due:  # else nobody sees the numbers, and a GPU need not be waited for
        loss, psnr = float(total_loss(terms)), psnr_of_mse(float(terms["colour_fine"][1]))
        bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{psnr:.2f}", rays=f"{rate:.0f}/s", refresh=False)
    bar.update()
    if not to_wandb and not to_print:
        return
    scalars = scalars_of(trainer, terms, renderings, args.entropy_acc_threshold, rate)
    if to_wandb:
        log.wandb(step, scalars)
    if to_print:
        log.tensorboard(step, scalars)
        parts = "  ".join(f"{name} {float(value):.4g}" for name, (_, value) in terms.items())
        say(f"step {step}  loss {loss:.4f}  psnr {psnr:.2f}  {parts}  {rate:.0f} rays/s")
        for which in empty_passes(renderings[SEEN]):
            say(f"WARNING: the {which} network has density nowhere on this step's rays, hence no gradient; if this "
                "warning stays, it is stuck at a bad start: start again with another --seed")


def empty_passes(rendering) -> list[str]:
    """The passes that see nothing at all."""
    passes = rendering._asdict().items()
    return [which for which, composite in passes if composite is not None and not composite.acc.any()]


def run_rendering(args: argparse.Namespace) -> int:
    """render_only and eval_only: nothing is trained, no checkpoint is written."""
    if args.eval_only:
        kinds = ["testset"]
    else:
        chosen = {"test": args.render_test, "train": args.render_train, "path": args.render_mypath}
        kinds = [f"renderonly_{which}" for which, wanted in chosen.items() if wanted] or ["renderonly_test"]
    records = evaluate_checkpoint(args, kinds)
    if records:
        say(table({f"{args.expname} {kind}": record for kind, record in records.items()}))
    return 0


def run_training(args: argparse.Namespace, scene: Scene, device: torch.device, argv: list[str]) -> int:
    trainer = make_trainer(args, scene, device)
    describe(args, scene, trainer, device)
    folder = build.run_folder(args)
    newest, found = checkpoint.latest(folder), build.find_checkpoint(args)
    if found:
        resume(trainer, found, args)
        say(f"going on from {found.path}, step {trainer.step}")
    if trainer.step >= args.N_iters or trainer.stopped_early:
        early = ", where the training was stopped early" if trainer.stopped_early else ""
        say(f"nothing to do: step {trainer.step} of N_iters {args.N_iters} is reached{early}")
        say_best(trainer, args)
        return 0
    with sole_owner(make_folder(folder)):
        if checkpoint.latest(folder) != newest:
            raise InputError(f"{folder}: another process has just trained there; the same command goes on from it")
        return train_in_folder(trainer, args, scene, argv)


def train_in_folder(trainer: Trainer, args: argparse.Namespace, scene: Scene, argv: list[str]) -> int:
    """Train a run whose folder no other process writes to. Returns the exit status."""
    prepare_folder(args, trainer.step)
    wandb_run = start_wandb(args.expname, args.wandb_group, vars(args), build.run_folder(args)) if args.wandb else None
    log = Log(build.run_folder(args), trainer.step, wandb_run)
    try:
        with Interrupt() as interrupt:
            try:
                train(trainer, args, scene, log, interrupt)
            except Stopped as stopped:
                interrupt.hold_on()
                say(f"{stopped}: saved {save(trainer, args)}; to go on:\n  {resume_command(args, argv)}")
                return stopped.status
    except NonFiniteLoss as error:
        newest = checkpoint.latest(build.run_folder(args))
        kept = f"the last checkpoint stands: {newest}" if newest else "no checkpoint was saved"
        print(f"run_nerf.py: {error}; {kept}", file=sys.stderr)
        return 1
    finally:
        log.close()
    say_best(trainer, args)
    early = ", stopped early" if trainer.stopped_early else ""
    say(f"done: {trainer.step} steps{early}, {build.run_folder(args)}")
    return 0


def say_best(trainer: Trainer, args: argparse.Namespace) -> None:
    """Where the held-out views were best, and how to evaluate the weights of that step, if they are there."""
    if not trainer.held_out or not trainer.held_out.best_step:
        return
    folder, best, step = build.run_folder(args), trainer.held_out.best, trainer.held_out.best_step
    command = shlex.join(["python", "evaluate.py", str(folder), "--step", str(step)])
    found = checkpoint.path_of(folder, step).is_file()
    how = f"to evaluate that one: {command}" if found else "its checkpoint is not there"
    say(f"the held-out PSNR was best, {best:.2f}, at step {step}; {how}")


def prepare_folder(args: argparse.Namespace, step: int) -> None:
    """The first thing that is written: the run's folder and its options, as a config file."""
    folder = build.run_folder(args)
    if (folder / "args.txt").is_dir():
        raise InputError(f"{folder}/args.txt: found a folder, expected the options of a run, or nothing there")
    write_options(args)
    for path in folder.glob("*.tmp"):  # of a run that was killed
        path.unlink(missing_ok=True)
    aside = checkpoint.set_aside(folder, step)
    if aside:
        say(f"checkpoints and pictures later than step {step} are now in {aside}")


def resume_command(args: argparse.Namespace, argv: list[str]) -> str:
    """The command that goes on from the newest checkpoint of this run."""
    words = ["python", sys.argv[0], *argv]
    if args.no_reload:
        words += ["--no_reload", "False"]
    if args.ft_path:
        words += ["--ft_path", str(checkpoint.latest(build.run_folder(args)))]
    return shlex.join(words)


def run(argv: list[str]) -> int:
    args, notes = parse_options(argv)
    for note in notes:
        say(note)
    if args.render_only or args.eval_only:
        return run_rendering(args)
    device = build.build_device(args.device)
    return run_training(args, build.build_scene(args), device, argv)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done; 1 a loss that is not finite, or a system that fails (disk, memory); 2 a file or
    option that cannot be used; 130 or 143 stopped."""
    return exit_status("run_nerf.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
