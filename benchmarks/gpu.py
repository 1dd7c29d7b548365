"""All that is to be measured on a GPU, in one command: `python benchmarks/gpu.py [--minutes 4] [--output gpu.json]`.

First whether the gradients of a captured step are those of --exact_dense, then times, in the order of importance. What
fails is said in its row, and so is what no longer fits into the minutes. The variants of a step share a process: their
stretches of steps are interleaved, with weights and step number that stay as they are; every stretch ends by waiting
for the GPU. The JSON is written anew after each part. Options of run_nerf.py go to every configuration, so that
this is tried in seconds on a CPU, where steps of fixed shapes are done as they are: `--device cpu --tiny`.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Else the profiler may let go of CUPTI, and take it up again, while graphs are there.
os.environ.update({"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"})

from infonerf.system import startup  # noqa: E402, F401  # isort: skip  # before torch
import torch  # noqa: E402

from infonerf.command_line import parse_options  # noqa: E402
from infonerf.config import Config  # noqa: E402
from infonerf.evaluation.estimates import draw_rays, psnr_of_rays  # noqa: E402
from infonerf.evaluation.metrics import psnr_of_mse  # noqa: E402
from infonerf.rendering.occupancy import EVERY  # noqa: E402
from infonerf.system.arguments import ABOVE_ZERO, POSITIVE, ScriptParser  # noqa: E402
from infonerf.system.devices import find_device  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402
from infonerf.training import checkpoint  # noqa: E402
from run_nerf import Trainer, create_fixed_stepper, create_trainer  # noqa: E402
from run_nerf_helpers import create_renderer, load_scene  # noqa: E402

RELEASED = ["configs/infonerf/synthetic/lego.txt", "--density_bias", "0.2", "--precrop_iters", "0"]
FAST, SAMPLE = ["configs/fast/synthetic/lego_mlp.txt"], ["configs/infonerf/sample.txt"]
DENSE = {"exact_dense": True}
VARIANTS = {
    "exact_dense": DENSE,
    "captured": {},
    "captured, fp32": {"precision": "fp32"},
    "not captured": {"cuda_graphs": False},
    "captured, skip_empty": {"skip_empty": True},
}
TARGETS = {("mid-training", "captured"): ("6x", "12x, 7 ms"), ("initial", "captured"): ("2.5x", "5x")}
TINY = ["--netdepth", "2", "--netdepth_fine", "2", "--netwidth", "8", "--netwidth_fine", "8", "--N_rand", "8",
        "--N_samples", "4", "--N_importance", "4"]  # fmt: skip
TINY_SIZES = {"seconds": 0.1, "stretch": 1, "repeats": 1, "rays": 100, "steps": 4}
WARM, RAYS, GRID_UPDATES, PROFILED = 3, 6000, 200, 10  # steps; rays of validation views; a grid that is known; steps
NO_WEIGHTS = "there are no weights of mid-training (part: training)"


class NotMeasured(Exception):
    """The message says why."""


@dataclass
class Row:
    """A figure, or what was asked for (at_least, aim) and why there is none (detail)."""

    name: str
    value: float | None = None
    unit: str = ""
    detail: str = ""
    at_least: str = ""
    aim: str = ""

    def __str__(self) -> str:
        measured = "-" if self.value is None else f"{self.value:.3g} {self.unit}"
        return f"{self.name:44}{measured:>16}  {self.detail:30}{self.at_least:>10}{self.aim:>12}".rstrip()


class Bench:
    """What the parts share. weights: a checkpoint of the released configuration in mid-training, once it is there."""

    def __init__(self, given: argparse.Namespace, options: list[str], folder: Path):
        self.given, self.folder, self.device = given, folder, find_device(given.device)
        small = TINY if given.tiny else []
        self.options = ["--device", given.device, "--datadir", str(given.datadir.resolve()), *small, *options]
        self.scenes, self.weights = {}, None

    def config(self, words: list[str], **changes) -> Config:
        path, *more = words
        given = ["--config", str(ROOT / path), "--expname", "gpu", *more, *self.options]
        return parse_options(given)[0].replace(**changes)

    def scene(self, config: Config):
        key = repr(config.data)
        if key not in self.scenes:
            self.scenes[key] = load_scene(config.data)
        return self.scenes[key]

    def trainer(self, config: Config, learning: bool, weights: Path | None = None, device=None) -> Trainer:
        device = device or self.device
        trainer = create_trainer(config, self.scene(config), device)
        if weights:
            checkpoint.read(weights).load(checkpoint.network_parts(trainer.networks))
        if device.type == "cpu" and config.rendering.cuda_graphs and not config.rendering.exact_dense:
            for group in trainer.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
            trainer.fixed = create_fixed_stepper(trainer, config, None)
        if not learning:
            trainer.lrates = [0.0] * len(trainer.lrates)
            for group in trainer.optimizer.param_groups:
                group["lr"] = group["lr"].fill_(0) if isinstance(group["lr"], torch.Tensor) else 0.0
        if trainer.occupancy and weights:
            for update in range(GRID_UPDATES):
                trainer.occupancy.update(EVERY * update, trainer.networks, trainer.generators.samples)
        return trainer

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable) -> float:
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def free(self) -> int:
        """Hand back memory that is not in use; what is left, in bytes, that of captured graphs included."""
        gc.collect()
        if self.device.type != "cuda":
            return 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_reserved(self.device)


def steps(trainer: Trainer, n: int) -> None:
    """n times the same step of the schedules, which learns nothing."""
    for _ in range(n):
        trainer.step = 1
        trainer.train_step()


def how(trainer: Trainer) -> str:
    """What kind of steps these were."""
    if trainer.fixed is None:
        return "plain"
    return "captured" if trainer.fixed.capture else "fixed, NOT captured"


# The parts.


def correctness(bench: Bench) -> Iterator[Row]:
    """One and the same step of 128 + 128 rays, whose samples are not drawn at random, as devices draw differently."""
    few = {"perturb": 0.0, "N_rand": min(128, bench.config(RELEASED).batch.N_rand), "N_entropy": 128}

    def gradient(changes: dict, device: torch.device = bench.device) -> tuple[torch.Tensor, str]:
        trainer = bench.trainer(bench.config(RELEASED, **few, **changes), learning=False, device=device)
        for _ in range(WARM):  # the second is captured
            trainer.generators.pixels.manual_seed(0)
            steps(trainer, 1)
        parts = [parameter.grad for parameter in trainer.networks.parameters() if parameter.grad is not None]
        return torch.cat([part.flatten().double().cpu() for part in parts]), how(trainer)

    dense, _ = gradient(DENSE)
    on_cpu, _ = gradient(DENSE, torch.device("cpu"))
    for precision, expected in (("fp32", "5e-6"), ("bf16", "3e-3")):
        ours, kind = gradient({"precision": precision})
        for other, theirs in (("exact_dense", dense), ("exact_dense, CPU", on_cpu)):
            error = float((ours - theirs).norm() / theirs.norm())
            yield Row(f"gradient, {precision}, to {other}", error, "relative", kind, aim=expected)
    yield Row("gradient, exact_dense, to exact_dense, CPU", float((dense - on_cpu).norm() / on_cpu.norm()), "relative")


def training(bench: Bench) -> Iterator[Row]:
    """The weights for all that follows."""
    trainer = bench.trainer(bench.config(RELEASED), learning=True)
    start = time.perf_counter()
    while time.perf_counter() - start < bench.given.seconds:
        for _ in range(10):
            terms, _ = trainer.train_step()
        psnr = psnr_of_mse(float(terms["colour_fine"][1]))  # waits for the GPU
    rate = trainer.step / (time.perf_counter() - start)
    trainer.check()
    bench.weights = checkpoint.save(bench.folder, trainer.step, {}, trainer.parts)
    detail = f"{trainer.step} steps, {psnr:.1f} dB, {how(trainer)}"
    yield Row("lego: training for the weights below", rate, "steps/s", detail)


def all_steps(weights: str) -> Callable[[Bench], Iterator[Row]]:
    def part(bench: Bench) -> Iterator[Row]:
        if weights == "mid-training" and bench.weights is None:
            raise NotMeasured(NO_WEIGHTS)
        trainers, peaks, failed = {}, {}, {}
        for name, changes in VARIANTS.items():
            before = bench.free()
            try:
                path = bench.weights if weights == "mid-training" else None
                trainer = bench.trainer(bench.config(RELEASED, **changes), learning=False, weights=path)
                steps(trainer, WARM)
                bench.wait()
            except Exception as error:
                failed[name] = reason(error)
                continue
            trainers[name] = trainer
            if bench.device.type == "cuda":
                peaks[name] = (torch.cuda.max_memory_reserved(bench.device) - before) / 1e9
        n, seconds = bench.given.stretch, {name: [] for name in trainers}
        for _ in range(bench.given.repeats):
            for name, trainer in trainers.items():
                seconds[name].append(bench.seconds(lambda trainer=trainer: steps(trainer, n)) / n)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        for name in VARIANTS:
            at_least, aim = TARGETS.get((weights, name), ("", ""))
            row = Row(f"lego, {weights}: {name}", unit="ms/step", at_least=at_least, aim=aim)
            if name in failed:
                row.detail = f"failed: {failed[name]}"
            else:
                row.value = 1e3 * medians[name]
                dense = medians.get("exact_dense")
                row.detail = f"{dense / medians[name]:.1f}x, {how(trainers[name])}" if dense else how(trainers[name])
            yield row
        for name, peak in peaks.items():
            yield Row(f"lego, {weights}: {name}: peak memory", peak, "GB", at_least="<= 3 GB" * (name == "captured"))

    return part


def idle(bench: Bench) -> Iterator[Row]:
    """Of the time that steps take without the profiler."""
    if bench.weights is None:
        raise NotMeasured(NO_WEIGHTS)
    for name in ("captured", "not captured", "exact_dense"):
        trainer = bench.trainer(bench.config(RELEASED, **VARIANTS[name]), learning=False, weights=bench.weights)
        steps(trainer, WARM)
        taken = min(bench.seconds(lambda trainer=trainer: steps(trainer, PROFILED)) / PROFILED for _ in range(3))
        busy = busy_seconds(trainer)
        detail = f"{1e3 * busy:.2f} of {1e3 * taken:.2f} ms busy"
        yield Row(f"lego, mid-training: {name}: GPU idle", max(0.0, 100 * (1 - busy / taken)), "%", detail)


def busy_seconds(trainer: Trainer) -> float:
    """How long the GPU computes or copies in a step."""
    device = trainer.networks.device
    if device.type != "cuda":
        raise NotMeasured(f"found {device}, expected a GPU")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps(trainer, PROFILED)
        torch.cuda.synchronize(device)
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )  # fmt: skip
    if not spans:
        raise NotMeasured("the profiler saw no kernels")
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy, until = busy + max(0.0, end - max(start, until)), max(until, end)
    return busy * 1e-6 / PROFILED


def rate_of(bench: Bench, trainer: Trainer, first: int, last: int) -> float:
    """Steps a second from step `first` to `last`."""

    def train(to: int) -> None:
        while trainer.step < to:
            trainer.train_step()

    train(first)
    return (last - first) / bench.seconds(lambda: train(last))


def fast(bench: Bench) -> Iterator[Row]:
    n = bench.given.steps
    config = bench.config(FAST)
    trainer, start = bench.trainer(config, learning=True), time.perf_counter()
    rate = rate_of(bench, trainer, n // 32, n // 4)
    yield Row("fast/lego: early steps", rate, "steps/s", f"to step {n // 4}, {how(trainer)}", "400", "1000")
    rate_of(bench, trainer, n // 4, n)
    bench.wait()
    seconds = time.perf_counter() - start
    trainer.check()
    yield Row(f"fast/lego: {n} steps", seconds, "s", f"{n / seconds:.0f} steps/s, {how(trainer)}")
    scene = bench.scene(config)
    drawn = draw_rays(scene, scene.split.val or scene.split.test, min(RAYS, 10 * bench.given.rays), bench.device)
    psnr = psnr_of_rays(trainer.picture_renderer(), drawn)["psnr"]
    yield Row(f"fast/lego: after {n} steps", psnr, "dB", "random rays of validation views")


def sample(bench: Bench) -> Iterator[Row]:
    config, n = bench.config(SAMPLE, datadir=str(ROOT / "data/sample")), bench.given.steps
    trainer = bench.trainer(config, learning=True)
    rate = rate_of(bench, trainer, n // 32, n // 4)
    yield Row("infonerf/sample: early steps", rate, "steps/s", f"to step {n // 4}, {how(trainer)}")


def pictures(bench: Bench) -> Iterator[Row]:
    if bench.weights is None:
        raise NotMeasured(NO_WEIGHTS)
    for name, changes in {"": {}, ", skip_empty": {"skip_empty": True}}.items():
        config = bench.config(RELEASED, **changes)
        scene, trainer = bench.scene(config), bench.trainer(config, learning=False, weights=bench.weights)
        renderer = create_renderer(config, scene, trainer.networks).for_pictures(trainer.networks)
        rays = scene.cameras.at(scene.split.test[:1]).to(bench.device).image_rays()
        rays = rays.at(torch.arange(bench.given.rays, device=bench.device) % len(rays))
        renderer.last_pass(rays)
        with torch.no_grad():
            median = statistics.median(bench.seconds(lambda r=renderer, x=rays: r.last_pass(x)) for _ in range(3))
        yield Row(f"a view of {len(rays)} rays, 8 x 256{name}", median, "s", at_least="2 s", aim="0.3 s")


def first_step(bench: Bench) -> Iterator[Row]:
    path, *more = RELEASED
    command = [sys.executable, str(ROOT / "run_nerf.py"), "--config", str(ROOT / path), *more, *bench.options,
               "--basedir", str(bench.folder), "--expname", "first", "--N_iters", "1", "--i_print", "1"]  # fmt: skip
    start, found, last = time.perf_counter(), None, ""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as run:
        for line in run.stdout:
            if found is None and line.lstrip("\r").startswith("step 1 "):
                found = time.perf_counter() - start
            last = line.strip() or last
    if found is None:
        raise RuntimeError(f"run_nerf.py said: {last}")
    yield Row("from the command to the first step", found, "s", at_least="6 s")


PARTS = {  # name: seconds that it takes at most on an H100, beside --seconds
    "correctness": (25, correctness),
    "training": (5, training),
    "steps in mid-training": (25, all_steps("mid-training")),
    "initial steps": (25, all_steps("initial")),
    "fast": (20, fast),
    "pictures": (15, pictures),
    "idle": (20, idle),
    "the first step": (15, first_step),
    "sample": (10, sample),
}


def reason(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {error}".strip().split("\n")[0][:120]


def about(device: torch.device) -> dict:
    """The machine."""
    found = {"device": str(device), "torch": torch.__version__, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split("\n")[0]
        except (OSError, subprocess.SubprocessError) as error:
            found["driver"] = f"not known ({type(error).__name__})"
    return found


def run() -> int:
    started = time.perf_counter()
    lego = ROOT / "data/nerf_synthetic/lego"
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=ABOVE_ZERO, default=4, help="in all")
    parser.add_argument("--seconds", type=ABOVE_ZERO, default=40, help="of training for the mid-training weights")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="file to write")
    parser.add_argument("--datadir", type=Path, default=lego if lego.is_dir() else ROOT / "data/sample")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which, in their order")
    parser.add_argument("--stretch", type=POSITIVE, default=10, help="steps that are timed together")
    parser.add_argument("--repeats", type=POSITIVE, default=5, help="stretches of each variant")
    parser.add_argument("--rays", type=POSITIVE, default=640000, help="of the picture")
    parser.add_argument("--steps", type=POSITIVE, default=1600, help="of the fast recipe")
    parser.add_argument("--tiny", action="store_true", help="everything as small as it can be, to try the code")
    given, options = parser.parse_known_args()
    if given.tiny:
        vars(given).update(TINY_SIZES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, options, Path(folder))
        bench.scene(bench.config(RELEASED))  # where it cannot be read, that is all there is to say
        content = about(bench.device) | {"datadir": given.datadir.name, "options": options}
        print(json.dumps(content))
        print(f"{'':44}{'measured':>16}  {'':30}{'at least':>10}{'aim':>12}")
        for name, (expected, part) in PARTS.items():
            left = 60 * given.minutes - (time.perf_counter() - started)
            found, begun = [], time.perf_counter()
            if name not in given.parts or left < expected + (given.seconds if name == "training" else 0):
                why = f"{left:.0f} s are left" if name in given.parts else "--parts leaves it out"
                found.append(Row(name, detail=f"not measured: {why}"))
                print(found[-1], flush=True)
            else:
                try:
                    for row in part(bench):
                        found.append(row)
                        print(row, flush=True)
                except NotMeasured as why:
                    found.append(Row(name, detail=f"not measured: {why}"))
                    print(found[-1], flush=True)
                except Exception as error:  # the other parts go on
                    found.append(Row(name, detail=f"failed: {reason(error)}"))
                    print(found[-1], flush=True)
            bench.free()
            rows += found
            content[f"seconds, {name}"] = round(time.perf_counter() - begun, 1)
            given.output.write_text(json.dumps(content | {"rows": [asdict(row) for row in rows]}, indent=1))
        print(f"{time.perf_counter() - started:.0f} s in all; {given.output}")
    return 1 if any(row.detail.startswith("failed") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(exit_status("gpu.py", run))
