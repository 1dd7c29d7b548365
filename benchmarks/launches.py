"""What a training step asks of a GPU, counted without one: `python benchmarks/launches.py [--OPTION VALUE ...]`.

Steps of some configs on a pretended device, on which tensors have shapes and no values (tests/support/devices.py), with
CUDA graphs and without. `operations`: what Python dispatches outside of graphs; `launches`: those of them that start
work on the device; `in graphs`: work that is started by the graphs, of which there are `graphs` a step; `waits`: where
the host waits for the device. Options are those of run_nerf.py, for every row.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from infonerf.system import startup  # noqa: E402, F401  # isort: skip  # before torch
import numpy as np  # noqa: E402
import torch  # noqa: E402

try:
    import pytest
except ImportError:
    print("launches.py: error: found no pytest, expected it: pip install -r requirements-dev.txt", file=sys.stderr)
    sys.exit(2)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

import run_nerf  # noqa: E402
from infonerf.command_line import parse_options  # noqa: E402
from infonerf.system.arguments import ScriptParser  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402
from infonerf.system.logs import text_table  # noqa: E402
from support.devices import DEVICE, pretending  # noqa: E402
from support.scenes import memory_scene, with_photographs  # noqa: E402

CONFIGS = ("infonerf/synthetic/lego", "infonerf/synthetic/lego_kl", "best/synthetic/lego", "fast/synthetic/lego",
           "best/synthetic/lego_mlp", "fast/synthetic/lego_mlp", "infonerf/sample")  # fmt: skip
# Whatever a config says: nothing that needs values, or a scene from files.
ALWAYS = ["--datadir", "none", "--visual_hull", "False", "--precision", "fp32", "--precrop_iters", "0"]
SIZE = 40  # of the scene's pictures, in pixels: room for a step's rays


@dataclass
class Counts:
    """Of one step. operations: by name, outside of graphs; `launches` of them on the device."""

    operations: Counter = field(default_factory=Counter)
    launches: int = 0
    in_graphs: int = 0
    graphs: int = 0
    waits: int = 0


class Counting(TorchDispatchMode):
    """Counts what is dispatched meanwhile."""

    def __init__(self):
        super().__init__()
        self.counts, self.in_graph = Counts(), False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if function.namespace == "prim":  # asks a tensor without values for its device, say
            return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        works = not function.is_view and any(tensor.device == DEVICE for tensor in tensors)
        if self.in_graph:
            self.counts.in_graphs += works
        else:
            self.counts.operations[function.overloadpacket.__name__] += 1
            self.counts.launches += works
        return result

    def capture(self, work, beside):
        """As capture_cuda: what is done again counts as a graph's, up to what the host does between."""

        def host(call) -> None:
            self.in_graph = False
            call()
            begin()

        def begin() -> None:
            self.in_graph = True
            self.counts.graphs += 1

        def again() -> None:
            begin()
            work(host)
            self.in_graph = False

        return again


def step_counts(options: list[str], captured: bool) -> Counts:
    """Of a step like most others: the third."""
    config, _ = parse_options(options)
    counting = Counting()
    with pretending() as waits, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run_nerf, "capture_of", lambda config, networks: counting.capture if captured else None)
        scene = with_photographs(memory_scene(sizes=[(SIZE, SIZE)] * 6), alpha=lambda view: np.ones((SIZE, SIZE)))
        trainer = run_nerf.create_trainer(config, scene, DEVICE)
        with counting:
            for _ in range(3):
                counting.counts, before = Counts(), len(waits)
                trainer.train_step()
        counting.counts.waits = len(waits) - before
    return counting.counts


def run() -> int:
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help="also show which operations there are")
    given, options = parser.parse_known_args()
    rows = [["config", "CUDA graphs", "operations", "launches", "graphs", "in graphs", "waits"]]
    for name in CONFIGS:
        for captured in (False, True):
            counts = step_counts(["--config", str(ROOT / f"configs/{name}.txt"), *ALWAYS, *options], captured)
            total = sum(counts.operations.values())
            numbers = (total, counts.launches, counts.graphs, counts.in_graphs, counts.waits)
            rows.append([name, "yes" if captured else "no", *map(str, numbers)])
            if given.names:
                print(*rows[-1], counts.operations.most_common())
    print(text_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("launches.py", run))
