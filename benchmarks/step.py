"""One training step, dense against sparse: `python benchmarks/step.py [--checkpoint FILE] [--OPTION VALUE ...]`.

Every variant runs in a process of its own; their steps are interleaved, so that whatever else the machine does falls
on all of them alike. Weights and draws are the same everywhere and are never updated, nor is a grid, which would add
about 1 % to a step. Other options are those of run_nerf.py, e.g. `--config configs/infonerf/synthetic/lego.txt
--datadir FOLDER --N_rand 128 --N_entropy 128`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from infonerf.system import startup  # noqa: E402, F401  # isort: skip  # before torch
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from tqdm import tqdm  # noqa: E402

from infonerf.command_line import parse_options  # noqa: E402
from infonerf.fields import fused  # noqa: E402
from infonerf.rendering.occupancy import EVERY  # noqa: E402
from infonerf.system.arguments import POSITIVE, ScriptParser  # noqa: E402
from infonerf.system.devices import find_device  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402
from infonerf.training import checkpoint  # noqa: E402
from run_nerf import Trainer, create_trainer  # noqa: E402
from run_nerf_helpers import load_scene  # noqa: E402

DEFAULT_MEMORY = {"MALLOC_CHECK_": "0"}  # any word of the environment on malloc keeps startup.py from having one
NOT_FUSED = {"STEP_NOT_FUSED": "1"}  # for child() below
VARIANTS = {  # name: options, environment
    "dense (reference)": ({"exact_dense": True}, DEFAULT_MEMORY),
    "dense, memory kept": ({"exact_dense": True}, {}),
    "sparse, layers not fused": ({}, NOT_FUSED),
    "sparse": ({}, {}),
    "sparse, bf16, not fused": ({"precision": "bf16"}, NOT_FUSED),
    "sparse, bf16": ({"precision": "bf16"}, {}),
    "sparse, skip_empty": ({"skip_empty": True}, {}),
    "sparse, bf16, skip_empty": ({"precision": "bf16", "skip_empty": True}, {}),
}
PLAIN = {"exact_dense": False, "precision": "fp32", "skip_empty": False, "visual_hull": False}  # whatever a config says
GRID_UPDATES = 200  # of an occupancy grid that has known these networks for long


def prepare(options: list[str], changes: dict, path: str | None) -> Trainer:
    """A trainer past its cropped steps, with a checkpoint's weights where there is one, that learns nothing. Every step
    is its second, whatever schedules there are. changes: a variant's options."""
    config = parse_options(options)[0].replace(**PLAIN | changes, precrop_iters=0)
    trainer = create_trainer(config, load_scene(config.data), find_device(config.run.device))
    if path:
        checkpoint.read(path).load(checkpoint.network_parts(trainer.networks))
    trainer.optimizer = torch.optim.Adam(trainer.networks.parameters(), lr=0.0)
    trainer.lrates = [0.0]
    if trainer.occupancy:
        for update in range(GRID_UPDATES) if path else ():  # at initial weights a grid is not in use yet
            trainer.occupancy.update(EVERY * update, trainer.networks, trainer.generators.samples)
    return trainer


def peak_memory(device: torch.device) -> float:
    """GB: of the GPU, or the process's greatest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def child(options: list[str], variant: str, path: str | None) -> None:
    """Be a variant's process: say the baseline memory, then do a step for every line that comes in."""
    if "STEP_NOT_FUSED" in os.environ:
        fused.has_kernel = lambda dtype: False
    trainer = prepare(options, VARIANTS[variant][0], path)
    device = trainer.networks.device
    print(peak_memory(device), flush=True)
    for line in sys.stdin:
        trainer.step = 1  # every step draws with the same schedule
        if line.strip() == "flops":
            print(gflop_of(trainer.train_step), flush=True)
            continue
        start = time.perf_counter()
        trainer.train_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        print(time.perf_counter() - start, peak_memory(device), flush=True)


def gflop_of(step: Callable) -> float:
    """Of the matrix products of a step: on one thread, as the counter hears of no other, and without operations that
    it does not know."""
    threads, has_kernel = torch.get_num_threads(), fused.has_kernel
    torch.set_num_threads(1)
    fused.has_kernel = lambda dtype: False
    with FlopCounterMode(display=False) as counter:
        step()
    torch.set_num_threads(threads)
    fused.has_kernel = has_kernel
    return counter.get_total_flops() / 1e9


class Child:
    """A variant's process."""

    def __init__(self, options: list[str], variant: str, path: str | None):
        command = [sys.executable, __file__, "--child", variant, *(["--checkpoint", path] if path else []), *options]
        environment = os.environ | VARIANTS[variant][1]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        (self.baseline,) = self.answer()
        self.seconds, self.peak, (self.gflop,) = [], 0.0, self.ask("flops")
        self.ask("step")  # to warm up

    def ask(self, word: str) -> list[float]:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> list[float]:
        """The numbers that the process says; where it has ended, it has said why, and so do we."""
        line = self.process.stdout.readline()
        if not line:
            sys.exit(self.process.wait() or 1)
        return [float(number) for number in line.split()]

    def step(self) -> None:
        seconds, self.peak = self.ask("step")
        self.seconds.append(seconds)


def matmul_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a layer of the released network: 16384 points, 256 channels."""
    device = find_device("auto")
    a, b = torch.rand(16384, 256, device=device).to(dtype), torch.rand(256, 256, device=device).to(dtype)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * 16384 * 256 * 256 / min(seconds) / 1e9


def run() -> int:
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="weights to measure at; without it, initial weights")
    parser.add_argument("--repeats", type=POSITIVE, default=5, help="steps of each variant")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    given, options = parser.parse_known_args()
    if not any(word.startswith("--config") for word in options):
        options = ["--config", "configs/infonerf/sample.txt", *options]
    if given.child:
        child(options, given.child, given.checkpoint)
        return 0
    path = given.checkpoint and str(Path(given.checkpoint).resolve())
    children = {name: Child(options, name, path) for name in VARIANTS}
    for _ in tqdm(range(given.repeats), desc="every variant a step"):
        for one in children.values():
            one.step()
    rates = {dtype: matmul_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(" ".join(options))
    print(f"weights: {given.checkpoint or 'initial'}; {torch.get_num_threads()} threads; matrix products of "
          f"{rates[torch.float32]:.0f} GFLOP/s (float32), {rates[torch.bfloat16]:.0f} GFLOP/s (bfloat16)")
    reference = statistics.median(children["dense (reference)"].seconds)
    print(f"{'':26}{'s/step':>8}{'ratio':>8}{'GFLOP':>8}{'GFLOP/s':>9}{'of peak':>9}{'peak GB':>9}")
    for name, one in children.items():
        seconds, flops = statistics.median(one.seconds), one.gflop
        peak = rates[torch.bfloat16 if "bf16" in name else torch.float32]
        print(f"{name:26}{seconds:8.3f}{reference / seconds:7.1f}x{flops:8.0f}{flops / seconds:9.0f}"
              f"{flops / seconds / peak:9.0%}{one.peak - one.baseline:9.2f}", flush=True)
        one.process.stdin.close()
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("step.py", run))
