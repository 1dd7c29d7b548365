"""Parsed options -> the objects that they describe. Everything else takes plain arguments."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from infonerf.fields.nerf import Annealing, DenseQuery, NeRF, Networks, Query, Sampling
from infonerf.rendering.occupancy import CELLS, Occupancy
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.scene import Scene, bounds_of
from infonerf.scene.visual_hull import carved_cells
from infonerf.system.errors import InputError
from infonerf.system.logs import say
from infonerf.training import checkpoint
from infonerf.training.sampler import (
    PATCH,
    SEEN,
    UNSEEN,
    Cameras,
    Crop,
    MovedPose,
    NearPixel,
    RangeAnnealing,
    RaySampler,
    RotatedPose,
    cameras_of,
    central_crop,
)
from load_scene import load_scene
from loss import (
    Regularizer,
    carving_regularizer,
    depth_smoothness_regularizer,
    distortion_regularizer,
    entropy_regularizer,
    occlusion_regularizer,
    smoothness_regularizer,
)


def build_device(name: str) -> torch.device:
    """auto: CUDA when there is a GPU that works, else the CPU."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        fault = fault_of(torch.device("cuda"))
        if fault is None:
            return torch.device("cuda")
        say(f"WARNING: the GPU cannot be used ({fault}): going on with the CPU")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: found no CUDA device, expected auto or cpu on this machine")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: found {torch.cuda.device_count()} CUDA devices, expected one of them")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: found no MPS device, expected auto or cpu on this machine")
    fault = fault_of(device)
    if fault:
        raise InputError(f"--device {name}: found a device that cannot be used ({fault}), expected auto or cpu")
    return device


def fault_of(device: torch.device) -> str | None:
    """Why a device that is there computes nothing: this PyTorch has no kernels for a GPU, say, or others hold it."""
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError as error:
        return str(error).strip().split("\n")[0]
    return None


def run_folder(args: argparse.Namespace) -> Path:
    return Path(args.basedir) / args.expname


def find_checkpoint(args: argparse.Namespace) -> checkpoint.Checkpoint | None:
    """The checkpoint to start from: ft_path, else the newest of the run that is not damaged. To render,
    ckpt_render_iter names another one."""
    if args.no_reload:
        return None
    if args.ft_path:
        return checkpoint.read(args.ft_path)
    if args.ckpt_render_iter and (args.render_only or args.eval_only):
        return checkpoint.read(checkpoint.path_of(run_folder(args), args.ckpt_render_iter))
    return checkpoint.newest_valid(run_folder(args), say)


# Options that say how a run is started or looked at, not what it is.
ABOUT_THE_START = ("config", "ft_path", "no_reload", "basedir", "expname", "device", "render_only", "eval_only",
                   "render_test", "render_train", "render_mypath", "render_factor", "ckpt_render_iter",
                   "keep_checkpoints")  # fmt: skip


def changed_options(found: checkpoint.Checkpoint, args: argparse.Namespace) -> list[str]:
    """A line for each option that differs from those a checkpoint of ours was trained with."""
    lines = []
    for name, value in (found.content["options"] if found.ours else {}).items():
        now = getattr(args, name, value)
        if name in ("datadir", "maskdir"):
            value, now = (None if path is None else str(Path(path).resolve()) for path in (value, now))
        if now != value and name not in ABOUT_THE_START:
            lines.append(f"changed since the checkpoint: {name} was {value}, now {now}")
    return lines


@dataclass(frozen=True)
class Generators:
    """The random states of a run. pixels: which views and pixels are drawn, always on the CPU, so the
    same on every device. samples: jitter and noise, on the device. weights: the initial networks."""

    weights: torch.Generator
    pixels: torch.Generator
    samples: torch.Generator

    def state_dict(self) -> dict:
        return {
            "pixels": self.pixels.get_state(),
            "samples": self.samples.get_state(),
            "samples_device": self.samples.device.type,
        }

    def load_state_dict(self, state: dict) -> bool:
        """False where the state of `samples` is of another kind of device and cannot be taken over."""
        self.pixels.set_state(state["pixels"])
        same_device = state["samples_device"] == self.samples.device.type
        if same_device:
            self.samples.set_state(state["samples"])
        return same_device


def build_generators(seed: int, device: torch.device) -> Generators:
    """Independent generators from one seed."""
    weights, pixels, samples = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint32))
    return Generators(
        torch.Generator().manual_seed(weights),
        torch.Generator().manual_seed(pixels),
        torch.Generator(device).manual_seed(samples),
    )


def build_scene(args: argparse.Namespace) -> Scene:
    scene = load_scene(
        args.dataset_type,
        args.datadir,
        maskdir=args.maskdir,
        half_res=args.half_res,
        testskip=args.testskip,
        white_bkgd=args.white_bkgd,
        train_scene=args.train_scene,
        test_scene=args.test_scene,
        fewshot=args.fewshot,
        fewshot_seed=args.fewshot_seed,
        unseen_poses=args.unseen_poses,
        dtu_intrinsics=args.dtu_intrinsics,
        allow_outside=args.allow_outside,
        near=args.near,
        far=args.far,
    )
    if args.lindisp and not scene.near:
        raise InputError("--lindisp: found --near 0, expected more: there is no disparity at depth 0")
    return scene


def build_networks(args: argparse.Namespace, device: torch.device, generator: torch.Generator) -> Networks:
    """The coarse network and, with importance sampling, the fine one. Initialised on the CPU, so the
    same on every device."""
    encoded = args.i_embed == 0

    def network(depth: int, width: int) -> NeRF:
        return NeRF(
            depth=depth,
            width=width,
            multires=args.multires if encoded else None,
            multires_views=args.multires_views if encoded else None,
            use_viewdirs=args.use_viewdirs,
            output_ch=5 if args.N_importance else 4,
            generator=generator,
            device=device,
            density_bias=args.density_bias,
            multi_input=args.mi_mlp,
            annealing=Annealing(args.freq_start, args.freq_end_iter) if args.freq_end_iter else None,
        )

    coarse = network(args.netdepth, args.netwidth)
    return Networks(coarse, network(args.netdepth_fine, args.netwidth_fine) if args.N_importance else None)


def build_sampling(args: argparse.Namespace) -> Sampling:
    return Sampling(
        n_samples=args.N_samples,
        n_importance=args.N_importance,
        lindisp=args.lindisp,
        white_background=args.white_bkgd,
        perturb=args.perturb > 0,
        noise_std=args.raw_noise_std,
    )


CPU_BLOCK = 8192  # points whose activations stay near a CPU's caches


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 faster than those of float32."""
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def matmul_dtype(args: argparse.Namespace, device: torch.device) -> torch.dtype | None:
    """Of the networks' hidden layers; None for that of their weights."""
    low = args.precision == "bf16" or (args.precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if low and not args.exact_dense else None


def build_occupancy(args: argparse.Namespace, scene: Scene, device: torch.device) -> Occupancy | None:
    """The grid of skip_empty, in which nothing is known to be empty yet."""
    if not args.skip_empty:
        return None
    bounds, carved = bounds_of(scene), None
    if args.visual_hull:
        require_alpha(scene, "visual_hull")
        carved = carved_cells(scene, bounds, CELLS, args.pixel_center).reshape(-1)
        if carved.all():
            raise InputError(f"--visual_hull: no point within the bounds of {scene.name} is seen opaque by all its "
                             "training views, expected an object")
        carved = torch.from_numpy(carved).to(device)
    return Occupancy(torch.as_tensor(bounds, dtype=torch.float32).to(device), matmul_dtype(args, device), carved)


def require_alpha(scene: Scene, option: str) -> None:
    if scene.alpha is None:
        raise InputError(f"--{option}: the images of {scene.name} have no alpha, expected RGBA images")


def build_query(args: argparse.Namespace, device: torch.device, occupancy: Occupancy | None = None) -> Query:
    """How networks are evaluated: everywhere (exact_dense), or only where it has an effect."""
    if args.exact_dense:
        return DenseQuery(args.netchunk)
    block = min(args.netchunk, CPU_BLOCK) if device.type == "cpu" else args.netchunk
    return SparseQuery(block, matmul_dtype(args, device), occupancy)


def has_unseen(args: argparse.Namespace) -> bool:
    """Whether the run draws rays of the unseen pool."""
    return (args.entropy or args.distortion_lambda > 0 or args.depth_smooth_lambda > 0) and args.N_entropy > 0


def build_regularizers(args: argparse.Namespace, scene: Scene) -> list[Regularizer]:
    regularizers = []
    if args.entropy:
        regularizers.append(
            entropy_regularizer(
                weight=args.entropy_ray_zvals_lambda,
                end=args.entropy_end_iter,
                threshold=args.entropy_acc_threshold,
                kind=args.entropy_type,
                log_scaling=args.entropy_log_scaling,
                unseen=has_unseen(args),
                seen=args.computing_entropy_all,
                neighbours=args.smoothing and not args.entropy_ignore_smoothing,
                on=args.entropy_on,
                skip_last=args.entropy_skip_last,
                start=args.entropy_start_iter,
                ramp=args.entropy_ramp,
            )
        )
    if args.smoothing:
        regularizers.append(
            smoothness_regularizer(
                weight=args.smoothing_lambda,
                rate=args.smoothing_rate,
                step_size=args.smoothing_step_size,
                end=args.smoothing_end_iter,
                activation=args.smoothing_activation,
                floor=args.smoothing_floor,
                unseen=has_unseen(args),
            )
        )
    if args.carving_lambda:
        regularizers.append(carving_regularizer(weight=args.carving_lambda))
    if args.occlusion_lambda:
        regularizers.append(occlusion_regularizer(weight=args.occlusion_lambda, samples=args.occlusion_samples))
    if args.distortion_lambda:
        regularizers.append(
            distortion_regularizer(
                weight=args.distortion_lambda,
                start=args.distortion_start_iter,
                near=scene.near,
                far=scene.far,
                unseen=has_unseen(args),
            )
        )
    if args.depth_smooth_lambda:
        regularizers.append(depth_smoothness_regularizer(weight=args.depth_smooth_lambda, size=PATCH))
    return regularizers


def build_neighbourhood(args: argparse.Namespace):
    if not args.smoothing:
        return None
    if args.smooth_sampling_method == "near_pixel":
        return NearPixel(args.smooth_pixel_range)
    if args.near_c2w_type == "random_pos":
        return MovedPose(args.near_c2w_trans)
    return RotatedPose(args.near_c2w_rot)


def unseen_cameras(scene: Scene, pixel_center: float, device: torch.device) -> Cameras:
    """The unseen pool; made poses have the first training view's intrinsics."""
    if scene.made_poses is None:
        return cameras_of(scene, scene.unseen, pixel_center, device)
    first = cameras_of(scene, scene.train[:1], pixel_center, device)
    poses = torch.as_tensor(scene.made_poses).to(first.poses)
    return first._replace(poses=poses, intrinsics=first.intrinsics.expand(len(poses), -1))


def build_sampler(args: argparse.Namespace, scene: Scene, device: torch.device) -> RaySampler:
    """Decodes the training views, and no others."""
    crop = central_crop(scene.height, scene.width, args.precrop_frac)
    counts = {"N_rand": args.N_rand}
    if has_unseen(args) and not args.depth_smooth_lambda:  # patches may overlap
        counts["N_entropy"] = args.N_entropy
    cropping = args.no_batching and args.precrop_iters > 1  # steps are counted from 1
    area = crop if cropping else Crop(0, 0, scene.height, scene.width)
    where = "the central crop (precrop_frac)" if cropping else "an image"
    if args.no_batching:
        for name, count in counts.items():
            if count > len(area):
                raise InputError(f"--{name} {count}: {where} has {len(area)} pixels, expected no more rays than that")
    if args.depth_smooth_lambda and min(area.height, area.width) < PATCH:
        raise InputError(f"--depth_smooth_lambda: {where} has {area.width} x {area.height} pixels, expected at least "
                         f"{PATCH} x {PATCH}")
    pools = {SEEN: (cameras_of(scene, scene.train, args.pixel_center, device), args.N_rand)}
    if has_unseen(args):
        pools[UNSEEN] = (unseen_cameras(scene, args.pixel_center, device), args.N_entropy)
    needs_alpha = [name for name in ("random_bkgd", "carving_lambda") if getattr(args, name)]
    if needs_alpha:
        require_alpha(scene, needs_alpha[0])
    images = np.empty((len(scene.train), scene.height, scene.width, 3), np.float32)
    alphas = np.empty(images.shape[:3], np.float32) if needs_alpha else None
    for i, view in enumerate(scene.train):
        images[i] = scene.image(view)
        if needs_alpha:
            alphas[i] = scene.alpha(view)
    return RaySampler(
        pools,
        torch.from_numpy(images).to(device),
        batching=not args.no_batching,
        neighbourhood=build_neighbourhood(args),
        crop=crop,
        crop_until=args.precrop_iters,
        alphas=torch.from_numpy(alphas).to(device) if needs_alpha else None,
        random_background=args.random_bkgd,
        patches=args.depth_smooth_lambda > 0,
        annealing=RangeAnnealing(args.range_start, args.range_end_iter) if args.range_end_iter else None,
    )
