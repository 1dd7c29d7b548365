"""Every option, declared once: name, default, type, help, and beside it the checks of it against others.

A Config is immutable and valid: making one, by `Config.replace` too, raises InputError for options that contradict each
other. Names and defaults are those of the released code (docs/method.md, Options), which lacks those marked `ours`.
Two configs agree on a subject where its sections are equal: `a.data == b.data` means the same photographs.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from infonerf.system.arguments import (
    ABOVE_ZERO,
    AMOUNT,
    COUNT,
    FRACTION,
    INTEGER,
    LARGEST,
    NUMBER,
    POSITIVE,
    SEED,
    bounded,
    flag,
)
from infonerf.system.errors import InputError
from infonerf.system.logs import printable

# Options of the released code that nothing ever read, with their defaults. They are accepted, and named once.
NO_EFFECT = {"entropy_ray_lambda": 1, "render_test_ray": False, "shape": "greek", "render_pass": False, "debug": False,
             "render_test_full": False}
# Options that were never usable in the released code.
REFUSED = ("alpha_model_path", "no_coarse")
LONGEST_EXPNAME = 200  # of expname, in bytes, as file systems count
LONGEST_TEXT = 4096  # of an option that a checkpoint holds

# Sizes beyond which a run fits no machine. Options that multiply are bounded together (Config.check_sizes).
RAYS, SAMPLES = 10**6, 10**4  # of a step, of a kind; of a ray
MOST_WEIGHTS = 10**9  # of a network: with their gradient and Adam's moments 16 GB
MOST_POINTS = 10**9  # of a step's rays, or of those rendered at a time: some 100 bytes each
MOST_CHANNELS = 10**11  # of all layers, of the points that go through a network at a time: 200 to 400 GB


@dataclass(frozen=True)
class Option:
    """What the command line and the documentation say of an option beside its name and default.

    parse: text -> value, an argparse type; None for text, and for flags, whose default is a bool.
    many: the value is a list. path: the value is one, from where the program is started. ours: the released code does
    not have it.
    identity: whether it changes what a picture of the trained run shows; not read in the sections NOT_IN_PICTURES.
    needs: the condition in NEEDS without which it has no effect.
    """

    help: str
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] | None = None
    many: bool = False
    metavar: str | None = None
    path: bool = False
    ours: bool = False
    identity: bool = True
    needs: str | None = None


def option(default: Any, help: str, parse: Callable | None = None, **facts) -> Any:
    """A field of a section: an option."""
    return field(default=default, metadata={"option": Option(help, parse, **facts)})


# The sections.


@dataclass(frozen=True)
class RunConfig:
    """run"""

    expname: str | None = option(None, "name of the run: its files go to basedir/expname")
    basedir: str = option("./logs/", "where runs are kept", path=True)
    device: str = option("auto", "auto (CUDA when there is one), cpu, cuda, cuda:N, mps", ours=True)
    no_reload: bool = option(False, "start afresh; checkpoints of the run are moved aside")
    ft_path: str | None = option(None, "checkpoint to start from, instead of the run's newest", path=True)

    def __post_init__(self):
        if self.expname:
            check_expname(self.expname)

    @property
    def folder(self) -> Path:
        """basedir/expname: where the run's files are."""
        return Path(self.basedir) / self.expname


def check_expname(expname: str) -> None:
    """Raise InputError unless a run's folder, basedir/expname, lies in basedir, and can be made."""
    path = Path(expname)
    if path.anchor or ".." in path.parts or not path.parts:
        raise InputError(f"--expname: found {expname!r}, expected a folder within basedir, such as synthetic/lego")
    length = len(os.fsencode(expname))
    if length > LONGEST_EXPNAME:
        raise InputError(f"--expname: found a name of {length} bytes, expected at most {LONGEST_EXPNAME}")


@dataclass(frozen=True)
class DataConfig:
    """data"""

    datadir: str | None = option(None, "folder of the scene", path=True, identity=False)
    dataset_type: str = option(
        "auto", "kind of scene; auto: by what its folder holds", choices=("auto", "llff", "blender", "dtu", "capture")
    )
    maskdir: str | None = option(
        None, "folder of object masks (dtu), for masked metrics", path=True, identity=False
    )
    train_scene: list[int] | None = option(None, "training views, by number", INTEGER, many=True, metavar="VIEW")
    test_scene: list[int] | None = option(
        None, "test views (dtu, llff, capture); -1 = all others", INTEGER, many=True, metavar="VIEW"
    )
    fewshot: int = option(0, "number of training views to draw; 0 = all", COUNT)
    fewshot_seed: int = option(0, "seed of that draw", SEED)
    fewshot_choice: str = option(
        "random", "how these are chosen: at random, or evenly from the first to the last", choices=("random", "even"),
        ours=True,
    )
    testskip: int = option(
        8, "blender: keep every n-th val and test view; capture: every n-th photograph is a test view, 0 = none",
        COUNT, needs="dataset_type blender or capture",
    )
    white_bkgd: bool = option(False, "composite images and renderings on white")
    drop_alpha: bool = option(
        False, "without white_bkgd: drop the alpha of RGBA images, as released, instead of compositing on black",
        ours=True, needs="no white_bkgd",
    )
    half_res: bool = option(False, "halve the images")
    image_scale: float = option(
        1.0, "the cameras' focal lengths and principal points are of images so many times as large",
        bounded(float, 0.001, 1000),
        ours=True,
    )
    factor: int = option(8, "images of 1/n of the size (llff)", bounded(int, 1, 1000), needs="dataset_type llff")
    no_ndc: bool = option(False, "rays in the world, not in normalised device coordinates (llff)")
    spherify: bool = option(
        False, "cameras all around, on a sphere about what they look at (llff, with no_ndc)", needs="dataset_type llff"
    )
    llffhold: int = option(
        8, "every n-th view is a test view, 0 = the one in the middle (llff)", COUNT, needs="dataset_type llff"
    )
    near: float | None = option(
        None, "depth where rays begin, else the data set's (blender 2, dtu 0.1, llff in NDC 0)", AMOUNT, ours=True
    )
    far: float | None = option(
        None, "depth where they end, else the data set's (blender 6, dtu 5, llff in NDC 1)", ABOVE_ZERO, ours=True
    )
    pixel_center: float = option(
        0.0, "where in its pixel a ray passes: 0 the corner (released), 0.5 the centre", bounded(float, 0, 1), ours=True
    )
    dtu_intrinsics: str = option(
        "shared", "dtu: the released mean focal about the image centre, or each camera's own",
        choices=("shared", "per_view"), ours=True, needs="dataset_type dtu",
    )
    allow_outside: bool = option(
        False, "blender, capture: a file_path may lead out of the scene's folder (.. or an absolute path)",
        ours=True, identity=False, needs="dataset_type blender or capture",
    )
    longest_side: int = option(
        800, "capture: pixels of a photograph's longer side, to which larger ones are reduced; 0 = as they are",
        bounded(int, 0, 100_000), ours=True, needs="dataset_type capture",
    )
    normalize: bool = option(
        True, "capture: move what the cameras look at to the world's origin, with z upwards, and scale it to the usual "
        "size; False: the files' own world", ours=True, needs="dataset_type capture",
    )
    depth_prior: str = option(
        "points", "known depths for the depth prior: a capture's sparse points, its depth images, or what a plane "
        "sweep finds in any scene's training photographs", choices=("points", "files", "sweep"), ours=True,
        needs="depth_prior_lambda",
    )
    unseen_poses: str = option(
        "no_test", "poses that may be regularised: all but the test views', or, as released, all; or poses made for "
        "it, between pairs of training cameras or spread around what they look at",
        choices=("no_test", "all", "interpolate", "spread"), ours=True, needs="a loss of unseen rays",
    )

    def may_be(self, *kinds: str) -> bool:
        """Whether the scene may be of one of these kinds, as far as the options say."""
        return self.dataset_type in ("auto", *kinds)


@dataclass(frozen=True)
class FieldConfig:
    """networks"""

    field: str = option(
        "nerf", "kind of field: an MLP, or planes and lines of features with a small one", choices=("nerf", "planes"),
        ours=True,
    )
    planes_resolution: int = option(
        128, "nodes along a side of the scene's bounds", bounded(int, 8, 4096), ours=True, needs="field planes"
    )
    planes_components: int = option(
        16, "features of a plane", bounded(int, 1, 1024), ours=True, needs="field planes"
    )
    planes_tv: float = option(
        0.0, "weight of the mean squared differences of neighbouring features", AMOUNT, ours=True, needs="field planes"
    )
    netdepth: int = option(8, "layers of the coarse network", bounded(int, 1, 100))
    netwidth: int = option(256, "channels of a layer", bounded(int, 2, 16384))
    netdepth_fine: int = option(8, "layers of the fine network", bounded(int, 1, 100))
    netwidth_fine: int = option(256, "channels of a layer", bounded(int, 2, 16384))
    use_viewdirs: bool = option(False, "colour depends on the viewing direction")
    i_embed: int = option(0, "0: positional encoding, -1: none", bounded(int, -1, 0))
    multires: int = option(10, "frequencies for points", bounded(int, 0, 32))
    multires_views: int = option(4, "frequencies for directions", bounded(int, 0, 32))
    density_bias: float = option(
        0.0, "added to the initial networks' raw density; 0.2 makes every seed start with density",
        bounded(float, -1000, 1000), ours=True
    )
    mi_mlp: bool = option(
        False, "the encoded point joins the input of every layer after the first, not of layer 5 alone", ours=True,
        needs="field nerf",
    )
    freq_start: int = option(0, "frequencies for points in use at the start", COUNT, ours=True, needs="field nerf")
    freq_end_iter: int = option(
        0, "let the others in, one after the other, until this step; 0 = all from the start", COUNT, ours=True,
        needs="field nerf",
    )

    def __post_init__(self):
        if self.freq_start and not self.freq_end_iter:
            raise InputError(f"--freq_start {self.freq_start}: found no --freq_end_iter, expected the step until which "
                             "the other frequencies are let in")
        if self.freq_end_iter and (self.i_embed or not self.multires):
            name = f"i_embed {self.i_embed}" if self.i_embed else "multires 0"
            raise InputError(f"--freq_end_iter {self.freq_end_iter}: found --{name}, expected frequencies to let in")
        if self.freq_start > self.multires:
            raise InputError(f"--freq_start {self.freq_start}: found --multires {self.multires}, expected at most that")


@dataclass(frozen=True)
class SamplingConfig:
    """samples along a ray"""

    N_samples: int = option(64, "coarse samples of a ray", bounded(int, 2, SAMPLES))
    N_importance: int = option(0, "further, fine samples of a ray", bounded(int, 0, SAMPLES))
    perturb: float = option(1.0, "0: samples evenly spaced, else jittered", AMOUNT)
    raw_noise_std: float = option(0.0, "noise on the raw density, in training", AMOUNT)
    lindisp: bool = option(False, "coarse samples linear in disparity, not in depth")
    range_start: float = option(
        0.5, "of near..far, the fraction about its middle that rays have at the start", FRACTION, ours=True,
        needs="range_end_iter",
    )
    range_end_iter: int = option(
        0, "they have the whole from this step on; 0 = from the start", COUNT, ours=True
    )

    def __post_init__(self):
        if self.N_importance and self.N_samples < 3:
            raise InputError(f"--N_samples {self.N_samples}: expected at least 3 with --N_importance "
                             f"{self.N_importance}")


@dataclass(frozen=True)
class RenderingConfig:
    """rendering: speed, memory, precision"""

    chunk: int = option(1024 * 32, "rays at a time", bounded(int, 1, 10**7), identity=False)
    netchunk: int = option(1024 * 64, "points at a time through a network", bounded(int, 1, 10**7), identity=False)
    precision: str = option(
        "auto", "of the networks' hidden layers; auto: bf16 where the hardware is made for it",
        choices=("fp32", "bf16", "auto"), ours=True,
    )
    exact_dense: bool = option(
        False, "evaluate the networks at every sample, also where it changes nothing (reference)", ours=True
    )
    cuda_graphs: bool = option(
        True, "on a CUDA GPU, capture training steps, so that the GPU need not wait for the host", ours=True,
        identity=False,
    )
    skip_empty: bool = option(
        False, "do not evaluate the networks outside the scene's bounds, nor where a grid of their density says that "
        "space is empty", ours=True,
    )
    visual_hull: bool = option(
        False, "with skip_empty: empty from the start is what a training view sees as transparent, and what lies "
        "beyond its frame where it shows the whole object (RGBA images)", ours=True,
    )

    def __post_init__(self):
        if self.visual_hull and not self.skip_empty:
            raise InputError("--visual_hull: found no --skip_empty, expected it, as the hull is a part of its grid")
        if self.exact_dense and (self.skip_empty or self.precision == "bf16"):
            name = "skip_empty" if self.skip_empty else f"precision {self.precision}"
            raise InputError(f"--{name}: not with --exact_dense, which evaluates everything in float32")


@dataclass(frozen=True)
class BatchConfig:
    """seen rays of a step, and the seed"""

    seed: int = option(0, "seed of the weights and of every draw", SEED, ours=True)
    N_rand: int = option(32 * 32 * 4, "seen rays of a step", bounded(int, 1, RAYS))
    no_batching: bool = option(False, "a step's rays come from one view, not from all")
    precrop_iters: int = option(0, "no_batching: until this step, central pixels", COUNT)
    precrop_frac: float = option(0.5, "fraction of the height and width that is central", FRACTION)
    random_bkgd: bool = option(
        False, "train on backgrounds of random colours instead of white (RGBA images)", ours=True
    )


@dataclass(frozen=True)
class LossesConfig:
    """losses beside colour: ray entropy, KL smoothness, and beyond the paper"""

    N_entropy: int = option(100, "unseen rays of a step; 0 = seen rays only", bounded(int, 0, RAYS))
    entropy: bool = option(False, "minimise the entropy of rays")
    entropy_ray_zvals_lambda: float = option(1.0, "weight of ray entropy (set it: 1 is far too much)", AMOUNT)
    entropy_acc_threshold: float = option(0.1, "least accumulated opacity of a ray that has entropy", NUMBER)
    entropy_type: str = option("log2", "kind of entropy", choices=("log2", "1-p"))
    entropy_log_scaling: bool = option(False, "logarithm of the entropy term")
    computing_entropy_all: bool = option(False, "entropy of seen rays too")
    entropy_ignore_smoothing: bool = option(False, "no entropy of the neighbour rays of the smoothness term")
    entropy_on: str = option(
        "alpha", "ray entropy of the samples' alphas, as in the paper, or of their rendering weights",
        choices=("alpha", "weights"), ours=True, needs="entropy",
    )
    entropy_skip_last: bool = option(
        False, "ray entropy without the last sample, whose bin is infinite", ours=True, needs="entropy"
    )
    entropy_start_iter: int = option(0, "first step with ray entropy", COUNT, ours=True, needs="entropy")
    entropy_ramp: int = option(0, "steps over which its weight grows from there", COUNT, ours=True, needs="entropy")
    entropy_end_iter: int | None = option(None, "last step with ray entropy", COUNT)
    smoothing: bool = option(False, "make neighbouring rays alike (KL smoothness, information-gain reduction)")
    smoothing_lambda: float = option(1.0, "weight of KL smoothness (set it: 1 is far too much)", AMOUNT)
    smoothing_activation: str = option("norm", "how opacities are normalised", choices=("norm", "softmax"))
    smoothing_floor: float = option(
        0.0, "added to the alphas of the KL term (norm), to bound its gradient where they are nearly 0", AMOUNT,
        ours=True, needs="smoothing with smoothing_activation norm",
    )
    smoothing_rate: float = option(
        1.0, "factor on the weight, every smoothing_step_size steps", bounded(float, 0, 10),
    )
    smoothing_step_size: int = option(5000, "steps between these factors", POSITIVE)
    smoothing_end_iter: int | None = option(None, "last step with KL smoothness", COUNT)
    smooth_sampling_method: str = option(
        "near_pose", "neighbours: the same pixel from a near pose, or a near pixel",
        choices=("near_pose", "near_pixel"),
    )
    near_c2w_type: str = option(
        "rot_from_origin", "near pose: turned about the world's origin, or moved",
        choices=("rot_from_origin", "random_pos"),
    )
    near_c2w_rot: float = option(5.0, "largest turn about each axis, degrees", bounded(float, 0, 360))
    near_c2w_trans: float = option(0.1, "standard deviation of the move", AMOUNT)
    smooth_pixel_range: int | None = option(None, "near pixel: largest Manhattan distance", bounded(int, 1, 10**5))
    carving_lambda: float = option(
        0.0, "weight of the mean opacity of seen rays whose pixel has alpha 0 (RGBA images)", AMOUNT, ours=True
    )
    occlusion_lambda: float = option(
        0.0, "weight of the density of the samples nearest to the camera, on seen rays", AMOUNT, ours=True
    )
    occlusion_samples: int = option(
        20, "how many samples of a ray these are", POSITIVE, ours=True, needs="occlusion_lambda"
    )
    distortion_lambda: float = option(
        0.0, "weight of how far apart the weights along a ray are, on seen and N_entropy unseen rays", AMOUNT, ours=True
    )
    distortion_start_iter: int = option(0, "first step with it", COUNT, ours=True, needs="distortion_lambda")
    depth_smooth_lambda: float = option(
        0.0, "weight of the differences of depth between unseen pixels, then drawn as 8 x 8 patches", AMOUNT, ours=True
    )
    depth_prior_lambda: float = option(
        0.0, "weight of how far rendering weights are from depths that the scene knows", AMOUNT, ours=True
    )
    depth_prior_sigma: float = option(
        0.01, "standard deviation of known depths, as a fraction of far - near", FRACTION, ours=True,
        needs="depth_prior_lambda",
    )
    depth_prior_end_iter: int = option(
        0, "the weight falls to 0 at this step, linearly; 0 = never", COUNT, ours=True, needs="depth_prior_lambda"
    )
    N_depth: int = option(
        64, "rays of a step through known depths", bounded(int, 1, RAYS), ours=True, needs="depth_prior_lambda"
    )

    def __post_init__(self):
        if self.smoothing and self.smooth_sampling_method == "near_pixel" and not self.smooth_pixel_range:
            raise InputError("--smooth_pixel_range: not given; near_pixel expects a distance in pixels, such as 3")
        if self.entropy_type == "1-p" and self.entropy_log_scaling:
            raise InputError("--entropy_log_scaling: not with --entropy_type 1-p, whose mean is negative")
        if self.entropy_end_iter is not None and self.entropy_start_iter > self.entropy_end_iter:
            raise InputError(f"--entropy_start_iter {self.entropy_start_iter}: found --entropy_end_iter "
                             f"{self.entropy_end_iter}, expected a start that is not after the end")
        if self.depth_smooth_lambda and (not self.N_entropy or self.N_entropy % 64):
            raise InputError(f"--depth_smooth_lambda: found --N_entropy {self.N_entropy}, expected a multiple of 64, "
                             "whole patches of 8 x 8 unseen pixels")

    @property
    def n_unseen(self) -> int:
        """Unseen rays of a step; 0 where no loss is of such rays."""
        wanted = self.entropy or self.distortion_lambda > 0 or self.depth_smooth_lambda > 0
        return self.N_entropy if wanted else 0


@dataclass(frozen=True)
class OptimiserConfig:
    """optimiser"""

    lrate: float = option(5e-4, "learning rate at the start", bounded(float, 0, 1e30, above=True))
    lrate_decay: float = option(250.0, "1000s of steps for a tenth of it", ABOVE_ZERO)
    ema_decay: float = option(
        0.0, "fraction of a moving average of the weights that a step keeps (0.995, say), and with which pictures are "
        "rendered; 0 = with the weights themselves", bounded(float, 0, 1), ours=True,
    )


@dataclass(frozen=True)
class StoppingConfig:
    """when to stop"""

    N_iters: int = option(200000, "steps in all", POSITIVE)
    i_val: int = option(
        0, "every so many steps the PSNR of random rays of validation views; 0 = never", COUNT, ours=True,
    )
    val_scene: list[int] | None = option(
        None, "i_val: views, by number, instead of the scene's validation views", COUNT, many=True, metavar="VIEW",
        ours=True, needs="i_val",
    )
    patience: int = option(
        0, "stop after so many measurements of i_val in a row without a better one; 0 = never", COUNT, ours=True,
    )

    def __post_init__(self):
        if self.patience and not self.i_val:
            raise InputError(f"--patience {self.patience}: found no --i_val, expected the number of steps from one "
                             "measurement to the next")


@dataclass(frozen=True)
class SavingConfig:
    """logging and saving, every so many steps (0 = never)"""

    i_print: int = option(100, "a line on the console, scalars to TensorBoard", COUNT)
    i_weights: int = option(10000, "a checkpoint (one comes at the end, too)", COUNT)
    keep_checkpoints: int = option(
        0, "keep the newest n checkpoints of the run, with i_val the best too; 0 = keep all", COUNT, ours=True,
    )
    i_testset: int = option(50000, "render and measure the test views", COUNT)
    i_img: int = option(500, "a small validation view to TensorBoard", COUNT)
    i_video: int = option(50000, "the path video", COUNT)
    wandb: bool = option(False, "log to Weights & Biases too, when installed")
    i_wandb: int = option(100, "how often", POSITIVE)
    wandb_group: str | None = option(None, "its group")


@dataclass(frozen=True)
class LookingConfig:
    """rendering a trained model"""

    render_only: bool = option(False, "do not train: render the test views of the newest checkpoint")
    eval_only: bool = option(False, "do not train: render the test views and measure them")
    render_test: bool = option(
        False, "render_only: the test views (the default)", needs="render_only"
    )
    render_train: bool = option(False, "render_only: the training views", needs="render_only")
    render_mypath: bool = option(
        False, "render_only: the video of a path (blender: a circle; else through the cameras)",
        needs="render_only",
    )
    path: str | None = option(
        None, "render_mypath: of a file instead, in nerfstudio's camera-path format, in the world of the scene's files",
        path=True, ours=True, needs="render_mypath",
    )
    render_factor: int = option(0, "render at 1/n of the size; 0 = full", bounded(int, 0, 1000))
    ckpt_render_iter: int | None = option(
        None, "render the checkpoint of this step", POSITIVE, needs="render_only or eval_only"
    )
    view: bool = option(
        False, "training: a page in the browser to watch it (docs/viewer.md); afterwards: view.py", ours=True
    )

    def __post_init__(self):
        if self.render_only and self.eval_only:
            raise InputError("--render_only and --eval_only: found both, expected one of them")

    @property
    def instead_of_training(self) -> bool:
        return self.render_only or self.eval_only


# The whole.


@dataclass(frozen=True)
class Config:
    """All options of a run, by section."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    field: FieldConfig = FieldConfig()
    sampling: SamplingConfig = SamplingConfig()
    rendering: RenderingConfig = RenderingConfig()
    batch: BatchConfig = BatchConfig()
    losses: LossesConfig = LossesConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    stopping: StoppingConfig = StoppingConfig()
    saving: SavingConfig = SavingConfig()
    looking: LookingConfig = LookingConfig()

    def __post_init__(self):
        n_samples = self.sampling.N_samples + self.sampling.N_importance
        if self.losses.occlusion_lambda and self.losses.occlusion_samples > n_samples:
            raise InputError(f"--occlusion_samples {self.losses.occlusion_samples}: found {n_samples} samples of a ray "
                             "(N_samples + N_importance), expected at most that")
        if self.batch.random_bkgd and not self.data.white_bkgd:
            raise InputError("--random_bkgd: found no --white_bkgd, expected it, as random colours take the place of "
                             "white")
        if self.run.no_reload and self.looking.instead_of_training:
            raise InputError("--no_reload: not with --render_only or --eval_only, which need a checkpoint")
        if self.looking.ckpt_render_iter and self.run.ft_path:
            raise InputError("--ckpt_render_iter and --ft_path: found both, expected one of them")

        self.check_growth()
        self.check_sizes()

    def check_growth(self) -> None:
        """Raise InputError where the weight of smoothing outgrows float32."""
        losses, last = self.losses, self.stopping.N_iters
        last = last if losses.smoothing_end_iter is None else min(last, losses.smoothing_end_iter)
        decades = last // losses.smoothing_step_size * math.log10(max(losses.smoothing_rate, 1))
        if decades > math.log10(LARGEST):
            raise InputError(f"--smoothing_rate {losses.smoothing_rate:g}: found --smoothing_step_size "
                             f"{losses.smoothing_step_size}, which makes the weight 1e{decades:.0f} times as large by "
                             f"step {last}, expected at most {LARGEST:.0e}")

    def check_sizes(self) -> None:
        """Raise InputError, before memory is taken, for options that together need more than any machine has."""
        field, sampling, losses = self.field, self.sampling, self.losses
        samples, planes = ("N_samples", "N_importance"), ("planes_resolution", "planes_components")
        of_rays = ("N_rand", "N_entropy", "N_depth")
        per_ray = 2 * sampling.N_samples + sampling.N_importance  # of the coarse and the fine network
        rays = self.batch.N_rand + losses.n_unseen + (losses.N_depth if losses.depth_prior_lambda else 0)
        require_at_most(self, "points of a step", rays * per_ray, MOST_POINTS, *of_rays, *samples)
        require_at_most(self, "points at a time", self.rendering.chunk * per_ray, MOST_POINTS, "chunk", *samples)
        if field.field == "planes":
            features = 4 * field.planes_components * field.planes_resolution**2  # three planes, at three resolutions
            require_at_most(self, "features of planes", features, MOST_WEIGHTS, *planes)
        for depth, width in (("netdepth", "netwidth"), ("netdepth_fine", "netwidth_fine")):
            layers, channels = getattr(field, depth), getattr(field, width)
            require_at_most(self, "weights of a network", layers * channels**2, MOST_WEIGHTS, depth, width)
            held = self.rendering.netchunk * layers * channels
            require_at_most(self, "channels at a time", held, MOST_CHANNELS, "netchunk", depth, width)

    def values(self) -> dict[str, Any]:
        """Every option by its name."""
        return {name: getattr(getattr(self, section), name) for section, name, _ in declared()}

    def replace(self, **options) -> "Config":
        """The config with other values of some options. Raises InputError where they contradict others, KeyError for
        a name that is no option."""
        of_section: dict[str, dict] = {}
        for name, value in options.items():
            of_section.setdefault(SECTION_OF[name], {})[name] = value
        return replace(self, **{name: replace(getattr(self, name), **given) for name, given in of_section.items()})

    def identity(self) -> dict[str, Any]:
        """The options that change what a picture of the trained run shows, by name."""
        values = self.values()
        names = [name for section, name, option in declared() if option.identity and section not in NOT_IN_PICTURES]
        return {name: values[name] for name in [*names, "render_factor"]}


def require_at_most(config: Config, what: str, found: int, most: int, *names: str) -> None:
    """Raise InputError where so many are too many, naming which of the options that make it are above their default."""
    if found > most:
        values = config.values()
        options = ", ".join(f"--{name} {values[name]}" for name in names if values[name] > DEFAULTS[name])
        raise InputError(f"{options}: found {found:.3g} {what}, expected at most {most:.3g}")


def sections() -> dict[str, type]:
    """Name -> class of each section of a Config; the class's docstring is the section's title."""
    return {part.name: type(part.default) for part in fields(Config)}


def declared() -> Iterator[tuple[str, str, Option]]:
    """Section, name and declaration of every option."""
    for section, kind in sections().items():
        for part in fields(kind):
            yield section, part.name, option_of(part)


def option_of(part: Field) -> Option:
    return part.metadata["option"]


SECTION_OF = {name: section for section, name, _ in declared()}
DEFAULTS = Config().values()
PATHS = tuple(name for _, name, option in declared() if option.path)
# Sections that do not say what a run is, but where it goes and how it is started, logged and looked at.
ABOUT_THE_START = ("run", "saving", "looking")
# Sections that a picture of the trained run does not depend on, but for its step.
NOT_IN_PICTURES = (*ABOUT_THE_START, "stopping")


def changed_since(values: Mapping[str, Any], config: Config) -> list[str]:
    """A line for each option of the run itself that differs from those (by name) that it was trained with."""
    lines = []
    for name, now in config.values().items():
        if name not in values or SECTION_OF[name] in ABOUT_THE_START:
            continue
        before = values[name]
        if name in PATHS:
            before, now = (None if path is None else str(Path(path).resolve()) for path in (before, now))
        if before != now:
            lines.append(printable(f"changed since the checkpoint: {name} was {before}, now {now}"))
    return lines


def has_networks_of(values: Mapping[str, Any], config: Config) -> bool:
    """Whether the networks of a run with those options (by name) are of the shapes of this one's."""
    named = [name for section, name, _ in declared() if section in ("field", "sampling")]
    now = config.values()
    return all(values.get(name, DEFAULTS[name]) == now[name] for name in named)


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of values by name, as a checkpoint holds them, those of options, parsed as a config file's would be. Raises
    ValueError for one that no config file could give its option."""
    found = {}
    for _, name, option in declared():
        value = values.get(name)
        try:
            if option.many and isinstance(value, list):
                found[name] = [recorded_value(name, item, option) for item in value]
            elif name in values:
                found[name] = DEFAULTS[name] if value is None else recorded_value(name, value, option)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def recorded_value(name: str, value: Any, option: Option) -> Any:
    parse = flag if isinstance(DEFAULTS[name], bool) else option.parse
    if type(value) not in ((str,) if parse is None else (str, int, float, bool)):
        expected = "text" if parse is None else "a value"
        raise argparse.ArgumentTypeError(f"found a value of type {type(value).__name__}, expected {expected}")
    if parse is not None:
        return parse(str(value)[:LONGEST_TEXT])
    if (option.choices and value not in option.choices) or not may_be_a_name(value):
        raise argparse.ArgumentTypeError(f"found {value[:50]!r}, expected {' or '.join(option.choices or ['a name'])}")
    return value


def may_be_a_name(text: str) -> bool:
    """Of a file: what a system cannot even ask for is no text of an option."""
    try:
        return b"\0" not in os.fsencode(text) and len(text) <= LONGEST_TEXT
    except UnicodeEncodeError:
        return False


# Conditions without which an option has no effect (Option.needs), in words.
NEEDS: dict[str, Callable[[Config], Any]] = {
    "field nerf": lambda config: config.field.field == "nerf",
    "field planes": lambda config: config.field.field == "planes",
    "entropy": lambda config: config.losses.entropy,
    "smoothing with smoothing_activation norm": lambda config: (
        config.losses.smoothing and config.losses.smoothing_activation == "norm"
    ),
    "range_end_iter": lambda config: config.sampling.range_end_iter,
    "i_val": lambda config: config.stopping.i_val,
    "occlusion_lambda": lambda config: config.losses.occlusion_lambda,
    "distortion_lambda": lambda config: config.losses.distortion_lambda,
    "depth_prior_lambda": lambda config: config.losses.depth_prior_lambda,
    "a loss of unseen rays": lambda config: config.losses.n_unseen,
    "no white_bkgd": lambda config: not config.data.white_bkgd,
    "dataset_type llff": lambda config: config.data.may_be("llff"),
    "dataset_type dtu": lambda config: config.data.may_be("dtu"),
    "dataset_type capture": lambda config: config.data.may_be("capture"),
    "dataset_type blender or capture": lambda config: config.data.may_be("blender", "capture"),
    "render_only": lambda config: config.looking.render_only,
    "render_mypath": lambda config: config.looking.render_mypath,
    "render_only or eval_only": lambda config: config.looking.instead_of_training,
}
