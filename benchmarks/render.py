"""Rendering a test view, dense against sparse: `python benchmarks/render.py LOGDIR [--every 10]`.

Renders every n-th row of the first test view of a trained run with every variant in turn, several times over, and
compares the pictures with the dense one. Times are given for the whole view. Take a run that was trained without
skip_empty: one trained with it has never learnt what lies in the space that it skips.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from infonerf.system import startup  # noqa: E402, F401  # isort: skip  # before torch
import torch  # noqa: E402

from infonerf.evaluation.metrics import mse, psnr_of_mse  # noqa: E402
from infonerf.system.arguments import POSITIVE, ScriptParser  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402
from run_nerf_helpers import create_renderer, open_run  # noqa: E402

PLAIN = {"exact_dense": False, "precision": "fp32", "skip_empty": False, "visual_hull": False}  # whatever the run has
VARIANTS = {
    "dense (reference)": {"exact_dense": True},
    "sparse": {},
    "sparse, bf16": {"precision": "bf16"},
    "sparse, skip_empty": {"skip_empty": True},
    "sparse, bf16, skip_empty": {"precision": "bf16", "skip_empty": True},
}


def run() -> int:
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path, help="folder of a trained run")
    parser.add_argument("--every", type=POSITIVE, default=10, help="render every n-th row")
    parser.add_argument("--repeats", type=POSITIVE, default=3, help="times that each variant renders")
    parser.add_argument("--datadir", help="where the scene lies now")
    given = parser.parse_args()
    datadir = {"datadir": given.datadir} if given.datadir else {}
    opened = open_run(given.logdir, **datadir)
    scene, networks, device = opened.scene, opened.renderer.networks, opened.renderer.networks.device
    first = (scene.split.test or scene.split.train)[0]
    (height, width), view = scene.size(first), scene.cameras.at([first]).to(device)
    rows = torch.arange(min(given.every, height) // 2, height, given.every, device=device)
    all_rays = view.image_rays()
    rays = all_rays.at((rows[:, None] * width + torch.arange(width, device=device)).flatten())

    renderers, preparing = {}, {}
    for name, options in VARIANTS.items():
        start = time.perf_counter()
        config = opened.config.replace(**PLAIN | options)
        renderers[name] = create_renderer(config, scene, networks).for_pictures(networks)
        preparing[name] = time.perf_counter() - start
    seconds, images = {name: [] for name in VARIANTS}, {}
    for _ in range(given.repeats):
        for name, renderer in renderers.items():
            start = time.perf_counter()
            image = renderer.last_pass(rays)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - start)
            images[name] = image.rgb.cpu().numpy()
    fraction = len(rays) / len(all_rays)
    print(f"{given.logdir}, {scene.view_names[first]}, {width} x {height} from {fraction:.1%} of its "
          f"rays; {torch.get_num_threads()} threads")
    print(f"{'':26}{'rays/s':>10}{'s/view':>10}{'ratio':>8}{'PSNR to dense':>15}{'grid, s':>9}")
    reference = statistics.median(seconds["dense (reference)"])
    for name, times in seconds.items():
        median, error = statistics.median(times), mse(images[name], images["dense (reference)"])
        likeness = "the same" if error == 0 else f"{psnr_of_mse(error):.1f} dB"
        grid = f"{preparing[name]:.1f}" if "skip" in name else "-"
        ratio = reference / median
        print(f"{name:26}{len(rays) / median:10.0f}{median / fraction:10.1f}{ratio:7.1f}x{likeness:>15}{grid:>9}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("render.py", run))
