"""Every option: name, type, default, help, and the checks of one against another.

Names and defaults are those of the released code (method specification, section 11); our own stand in
a group of their own. A flag may be given as `--entropy`, `--entropy True` or `--entropy False`, and in
a config file as `entropy = True`; what stands on the command line wins over the config file.
"""

import argparse
import difflib
import io
import math
import os
import re
import sys
from pathlib import Path

import configargparse

from infonerf.system.errors import InputError

# Options of the released code that nothing ever read. They are accepted, and named once.
NO_EFFECT = {"entropy_ray_lambda": 1, "render_test_ray": False, "shape": "greek", "render_pass": False, "debug": False,
             "render_test_full": False}
LLFF_ONLY = ("factor", "no_ndc", "spherify", "llffhold")
REFUSED = ("alpha_model_path", "no_coarse")
LEFT_OUT = {"config", "ft_path", "no_reload", *NO_EFFECT}  # of args.txt: how the run was started is no part of it
LONGEST_LINE, LONGEST_NAME = 10_000, 200  # of a config; of expname, in bytes, as file systems count


def flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise argparse.ArgumentTypeError(f"found {text!r}, expected True or False")


def bounded(kind: type, least: float = -math.inf, most: float = math.inf, above: bool = False):
    """A type for argparse: an int or float from `least` (or above it) to `most`; an int at most 1e9 by default."""
    most = 10**9 if kind is int and most == math.inf else most
    noun = "an integer" if kind is int else "a number"
    limits = [f"{'>' if above else '>='} {least:g}"] * (least > -math.inf) + [f"<= {most:g}"] * (most < math.inf)
    expected = " ".join([noun, " and ".join(limits)]).strip()

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        in_range = (value > least if above else value >= least) and value <= most and math.isfinite(value)
        if not in_range:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return parse


INTEGER, COUNT, POSITIVE = bounded(int), bounded(int, 0), bounded(int, 1)
AMOUNT, ABOVE_ZERO = bounded(float, 0), bounded(float, 0, above=True)
SHARE = bounded(float, 0, 1, above=True)


def open_config(path: str, *_) -> io.StringIO:
    """A config file as a stream, read whole so that whatever is wrong with it is one line."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"--config {path}: cannot be read ({reason}), expected a config file") from error
    longest = max(map(len, text.split("\n")))
    if longest > LONGEST_LINE:  # the parser takes its time
        raise InputError(f"--config {path}: found a line of {longest} characters, expected at most {LONGEST_LINE}")
    stream = set_lines(text)
    stream.name = path
    return stream


def set_lines(text: str) -> io.StringIO:
    """The lines of a config file that set something. An option of value None, as nerf-pytorch's args.txt have them,
    is one that is not given."""
    lines = io.StringIO(text, newline=None)
    return io.StringIO("".join(line for line in lines if not re.fullmatch(r"\s*[\w-]+\s*[=:]\s*None\s*", line)))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one that says something."""

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class Parser(configargparse.ArgumentParser):
    """An argument parser whose errors are InputErrors of one line, with the config file that a wrong value is from."""

    def error(self, message: str):
        message = re.sub("^Unable to open config file: .*? Error: (?=--config)", "", message)
        option = re.match(r"argument --(\w+): ", message)
        for source, given in self.get_source_to_settings_dict().items():
            if option and source.startswith("config_file|") and option[1] in given:
                message = f"{source.removeprefix('config_file|')}: {message}"
        raise InputError(" ".join(message.split()))


def make_parser() -> Parser:
    parser = Parser(
        usage="python run_nerf.py --config FILE [--OPTION VALUE ...]",
        description="Train InfoNeRF, or the NeRF it builds on, from a few photographs; resume; render.",
        allow_abbrev=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_open_func=open_config,
        formatter_class=HelpFormatter,
    )
    add_run_options(parser.add_argument_group("run"))
    add_own_options(parser.add_argument_group("our own, not in the released code"))
    add_data_options(parser.add_argument_group("data"))
    add_network_options(parser.add_argument_group("network"))
    add_rendering_options(parser.add_argument_group("rays and rendering"))
    add_training_options(parser.add_argument_group("training"))
    add_entropy_options(parser.add_argument_group("ray entropy"))
    add_smoothing_options(parser.add_argument_group("KL smoothness (information-gain reduction)"))
    add_further_options(parser.add_argument_group("beyond the paper"))
    add_evaluation_options(parser.add_argument_group("rendering a trained model"))
    add_logging_options(parser.add_argument_group("logging and saving, every so many steps (0 = never)"))
    add_inert_options(parser.add_argument_group("accepted, so that released config files parse"))
    for action in parser._actions:
        if action.metavar is None and action.choices is None and action.nargs != 0:
            action.metavar = "VALUE"
    return parser


def add_flag(group, name: str, help: str) -> None:
    group.add_argument(f"--{name}", type=flag, nargs="?", const=True, default=False, metavar="BOOL", help=help)


def add_run_options(group) -> None:
    group.add_argument("--config", is_config_file=True, metavar="FILE", help="config file of `option = value` lines")
    group.add_argument("--expname", help="name of the run: its files go to basedir/expname")
    group.add_argument("--basedir", default="./logs/", help="where runs are kept")


def add_own_options(group) -> None:
    group.add_argument("--seed", type=bounded(int, 0, 2**32 - 1), default=0,
                       help="seed of the weights and of every draw")
    group.add_argument("--device", default="auto", help="auto (CUDA when there is one), cpu, cuda, cuda:N, mps")
    add_flag(group, "allow_outside", "blender: a file_path may lead out of the scene's folder (.. or an absolute path)")
    add_flag(group, "exact_dense", "evaluate the networks at every sample, also where it changes nothing (reference)")
    group.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="auto",
                       help="of the networks' hidden layers; auto: bf16 where the hardware is made for it")
    add_flag(group, "skip_empty", "do not evaluate the networks outside the scene's bounds, nor where a grid of their "
             "density says that space is empty")
    group.add_argument("--density_bias", type=bounded(float), default=0.0,
                       help="added to the initial networks' raw density; 0.2 makes every seed start with density")
    group.add_argument("--unseen_poses", choices=("no_test", "all", "interpolate", "spread"), default="no_test",
                       help="poses that may be regularised: all but the test views', or, as released, all; or poses "
                       "made for it, between pairs of training cameras or spread around what they look at")
    group.add_argument("--dtu_intrinsics", choices=("shared", "per_view"), default="shared",
                       help="dtu: the released mean focal about the image centre, or each camera's own")
    group.add_argument("--near", type=AMOUNT, help="z-depth where rays begin, else the data set's (blender 2, dtu 0.1)")
    group.add_argument("--far", type=ABOVE_ZERO, help="z-depth where they end, else the data set's (blender 6, dtu 5)")
    group.add_argument("--keep_checkpoints", type=COUNT, default=0,
                       help="keep the newest n checkpoints of the run, with i_val the best too; 0 = keep all")
    group.add_argument("--pixel_center", type=bounded(float, 0, 1), default=0.0,
                       help="where in its pixel a ray passes: 0 the corner (released), 0.5 the centre")


def add_data_options(group) -> None:
    group.add_argument("--datadir", help="folder of the scene")
    group.add_argument("--dataset_type", choices=("llff", "blender", "dtu"), default="llff", help="kind of scene")
    group.add_argument("--maskdir", help="folder of object masks (dtu), for masked metrics")
    group.add_argument("--train_scene", type=INTEGER, nargs="*", metavar="VIEW", help="training views, by number")
    group.add_argument("--test_scene", type=INTEGER, nargs="*", metavar="VIEW",
                       help="test views (dtu); -1 = all others")
    group.add_argument("--fewshot", type=COUNT, default=0, help="number of training views to draw; 0 = all")
    group.add_argument("--fewshot_seed", type=bounded(int, 0, 2**32 - 1), default=0, help="seed of that draw")
    group.add_argument("--testskip", type=COUNT, default=8, help="keep every n-th val and test view (blender)")
    add_flag(group, "white_bkgd", "composite images and renderings on white")
    add_flag(group, "half_res", "halve the images")
    group.add_argument("--factor", type=POSITIVE, default=8, help="downsampling (llff)")
    add_flag(group, "no_ndc", "no normalised device coordinates (llff)")
    add_flag(group, "spherify", "360-degree scene (llff)")
    group.add_argument("--llffhold", type=COUNT, default=8, help="every n-th view is a test view (llff)")


def add_network_options(group) -> None:
    for suffix, which in (("", "coarse"), ("_fine", "fine")):
        group.add_argument(f"--netdepth{suffix}", type=POSITIVE, default=8, help=f"layers of the {which} network")
        group.add_argument(f"--netwidth{suffix}", type=bounded(int, 2), default=256, help="channels of a layer")
    add_flag(group, "use_viewdirs", "colour depends on the viewing direction")
    group.add_argument("--i_embed", type=bounded(int, -1, 0), default=0, help="0: positional encoding, -1: none")
    group.add_argument("--multires", type=COUNT, default=10, help="frequencies for points")
    group.add_argument("--multires_views", type=COUNT, default=4, help="frequencies for directions")


def add_rendering_options(group) -> None:
    group.add_argument("--N_samples", type=bounded(int, 2), default=64, help="coarse samples of a ray")
    group.add_argument("--N_importance", type=COUNT, default=0, help="further, fine samples of a ray")
    group.add_argument("--perturb", type=AMOUNT, default=1.0, help="0: samples evenly spaced, else jittered")
    group.add_argument("--raw_noise_std", type=AMOUNT, default=0.0, help="noise on the raw density, in training")
    add_flag(group, "lindisp", "coarse samples linear in disparity, not in depth")
    group.add_argument("--chunk", type=POSITIVE, default=1024 * 32, help="rays at a time")
    group.add_argument("--netchunk", type=POSITIVE, default=1024 * 64, help="points at a time through a network")


def add_training_options(group) -> None:
    group.add_argument("--N_iters", type=POSITIVE, default=200000, help="steps in all")
    group.add_argument("--N_rand", type=POSITIVE, default=32 * 32 * 4, help="seen rays of a step")
    group.add_argument("--lrate", type=bounded(float, 0, 1e30, above=True), default=5e-4,
                       help="learning rate at the start")
    group.add_argument("--lrate_decay", type=ABOVE_ZERO, default=250.0, help="1000s of steps for a tenth of it")
    add_flag(group, "no_batching", "a step's rays come from one view, not from all")
    group.add_argument("--precrop_iters", type=COUNT, default=0, help="no_batching: until this step, central pixels")
    group.add_argument("--precrop_frac", type=SHARE, default=0.5,
                       help="share of the height and width that is central")
    add_flag(group, "no_reload", "start afresh; checkpoints of the run are moved aside")
    group.add_argument("--ft_path", help="checkpoint to start from, instead of the run's newest")


def add_entropy_options(group) -> None:
    add_flag(group, "entropy", "minimise the entropy of rays")
    group.add_argument("--N_entropy", type=COUNT, default=100, help="unseen rays of a step; 0 = seen rays only")
    group.add_argument("--entropy_ray_zvals_lambda", type=AMOUNT, default=1.0, help="weight")
    group.add_argument("--entropy_acc_threshold", type=bounded(float), default=0.1,
                       help="least accumulated opacity of a ray")
    group.add_argument("--entropy_type", choices=("log2", "1-p"), default="log2", help="kind of entropy")
    group.add_argument("--entropy_end_iter", type=COUNT, help="last step with the term")
    add_flag(group, "entropy_log_scaling", "logarithm of the term")
    add_flag(group, "computing_entropy_all", "on seen rays too")
    add_flag(group, "entropy_ignore_smoothing", "not on the neighbour rays of the smoothness term")


def add_smoothing_options(group) -> None:
    add_flag(group, "smoothing", "make neighbouring rays alike")
    group.add_argument("--smoothing_lambda", type=AMOUNT, default=1.0, help="weight (set it: 1 is far too much)")
    group.add_argument("--smoothing_rate", type=bounded(float, 0, 10), default=1.0,
                       help="factor on the weight, every smoothing_step_size steps")
    group.add_argument("--smoothing_step_size", type=POSITIVE, default=5000, help="steps between these factors")
    group.add_argument("--smoothing_end_iter", type=COUNT, help="last step with the term")
    group.add_argument("--smoothing_activation", choices=("norm", "softmax"), default="norm", help="normalisation")
    group.add_argument("--smooth_sampling_method", choices=("near_pose", "near_pixel"), default="near_pose",
                       help="neighbours: the same pixel from a near pose, or a near pixel")
    group.add_argument("--near_c2w_type", choices=("rot_from_origin", "random_pos"), default="rot_from_origin",
                       help="near pose: turned about the world's origin, or moved")
    group.add_argument("--near_c2w_rot", type=AMOUNT, default=5.0, help="largest turn about each axis, degrees")
    group.add_argument("--near_c2w_trans", type=AMOUNT, default=0.1, help="standard deviation of the move")
    group.add_argument("--smooth_pixel_range", type=POSITIVE, help="near pixel: largest Manhattan distance")


def add_further_options(group) -> None:
    add_flag(group, "random_bkgd", "train on backgrounds of random colours instead of white (RGBA images)")
    group.add_argument("--carving_lambda", type=AMOUNT, default=0.0,
                       help="weight of the mean opacity of seen rays whose pixel has alpha 0 (RGBA images)")
    add_flag(group, "visual_hull", "with skip_empty: empty from the start is what a training view sees as transparent, "
             "and what lies beyond its frame where it shows the whole object (RGBA images)")
    add_flag(group, "mi_mlp", "the encoded point joins the input of every layer after the first, not of layer 5 alone")
    group.add_argument("--freq_start", type=COUNT, default=0, help="frequencies for points in use at the start")
    group.add_argument("--freq_end_iter", type=COUNT, default=0,
                       help="let the others in, one after the other, until this step; 0 = all from the start")
    group.add_argument("--range_start", type=SHARE, default=0.5,
                       help="of near..far, the share about its middle that rays have at the start")
    group.add_argument("--range_end_iter", type=COUNT, default=0,
                       help="they have the whole from this step on; 0 = from the start")
    group.add_argument("--ema_decay", type=bounded(float, 0, 1), default=0.0,
                       help="render with an exponential moving average of the weights, of which a step keeps so much "
                       "(0.995, say); 0 = with the weights themselves")
    group.add_argument("--entropy_on", choices=("alpha", "weights"), default="alpha",
                       help="ray entropy of the samples' alphas, as in the paper, or of their rendering weights")
    add_flag(group, "entropy_skip_last", "ray entropy without the last sample, whose bin is infinite")
    group.add_argument("--entropy_start_iter", type=COUNT, default=0, help="first step with ray entropy")
    group.add_argument("--entropy_ramp", type=COUNT, default=0, help="steps over which its weight grows from there")
    group.add_argument("--occlusion_lambda", type=AMOUNT, default=0.0,
                       help="weight of the density of the samples nearest to the camera, on seen rays")
    group.add_argument("--occlusion_samples", type=POSITIVE, default=20, help="how many samples of a ray these are")
    group.add_argument("--smoothing_floor", type=AMOUNT, default=0.0,
                       help="added to the alphas of the KL term (norm), to bound its gradient where they are nearly 0")
    group.add_argument("--distortion_lambda", type=AMOUNT, default=0.0,
                       help="weight of how far apart the weights along a ray are, on seen and N_entropy unseen rays")
    group.add_argument("--distortion_start_iter", type=COUNT, default=0, help="first step with it")
    group.add_argument("--depth_smooth_lambda", type=AMOUNT, default=0.0,
                       help="weight of the differences of depth between unseen pixels, then drawn as 8 x 8 patches")


    group.add_argument("--i_val", type=COUNT, default=0,
                       help="every so many steps the PSNR of random rays of validation views; 0 = never")
    group.add_argument("--val_scene", type=COUNT, nargs="*", metavar="VIEW",
                       help="i_val: views, by number, instead of the scene's validation views")
    group.add_argument("--patience", type=COUNT, default=0,
                       help="stop after so many measurements of i_val in a row without a better one; 0 = never")


def add_evaluation_options(group) -> None:
    add_flag(group, "render_only", "do not train: render the test views of the newest checkpoint")
    add_flag(group, "eval_only", "do not train: render the test views and measure them")
    add_flag(group, "render_test", "render_only: the test views (the default)")
    add_flag(group, "render_train", "render_only: the training views")
    add_flag(group, "render_mypath", "render_only: the video of a path (blender: a circle; else through the cameras)")
    group.add_argument("--render_factor", type=COUNT, default=0, help="render at 1/n of the size; 0 = full")
    group.add_argument("--ckpt_render_iter", type=POSITIVE, help="render the checkpoint of this step")


def add_logging_options(group) -> None:
    group.add_argument("--i_print", type=COUNT, default=100, help="a line on the console, scalars to TensorBoard")
    group.add_argument("--i_weights", type=COUNT, default=10000, help="a checkpoint (one comes at the end, too)")
    group.add_argument("--i_testset", type=COUNT, default=50000, help="render and measure the test views")
    group.add_argument("--i_img", type=COUNT, default=500, help="a small validation view to TensorBoard")
    group.add_argument("--i_video", type=COUNT, default=50000, help="the path video")
    add_flag(group, "wandb", "log to Weights & Biases too, when installed")
    group.add_argument("--i_wandb", type=POSITIVE, default=100, help="how often")
    group.add_argument("--wandb_group", help="its group")


def add_inert_options(group) -> None:
    for name, default in NO_EFFECT.items():
        group.add_argument(f"--{name}", nargs="?", const=True, default=default, help="no effect")
    group.add_argument("--alpha_model_path", help="refused")
    add_flag(group, "no_coarse", "refused")


def parse_options(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The checked options, and what the user should be told about them.

    Raises InputError, before anything is written, for options that are unknown, of a wrong type, or
    impossible together.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = make_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise InputError(unknown_option(unknown[0], parser, args.config))
    for action in parser._actions:  # of the word --, as argparse has it
        if isinstance(getattr(args, action.dest, None), list) and action.nargs != "*":
            raise InputError(f"--{action.dest}: found '--', expected a value")
    check(args)
    return args, warnings(args, {name for name, value in vars(args).items() if value != parser.get_default(name)})


def unknown_option(word: str, parser: Parser, config: str | None) -> str:
    name = word.split("=")[0].removeprefix("--")
    known = [action.dest for action in parser._actions]
    close = difflib.get_close_matches(name, known, n=1)
    where = f"on the command line or in {config}" if config else "on the command line"
    return f"unknown option {word!r} {where}" + (f"; did you mean --{close[0]}?" if close else "; see --help")


def check(args: argparse.Namespace) -> None:
    """Raise InputError for what cannot be, seen from the options alone."""
    for name in REFUSED:
        if getattr(args, name):
            raise InputError(f"--{name}: not supported (it was never usable in the released code), expected it unset")
    for name in ("expname", "datadir"):
        if not getattr(args, name):
            example = "--config configs/infonerf/synthetic/lego.txt"
            raise InputError(f"--{name}: not given; expected it in a config file (such as {example}) or as an option")
    if args.N_importance and args.N_samples < 3:
        raise InputError(f"--N_samples {args.N_samples}: expected at least 3 with --N_importance {args.N_importance}")
    if args.smoothing and args.smooth_sampling_method == "near_pixel" and not args.smooth_pixel_range:
        raise InputError("--smooth_pixel_range: not given; near_pixel expects a distance in pixels, such as 3")
    if args.entropy_type == "1-p" and args.entropy_log_scaling:
        raise InputError("--entropy_log_scaling: not with --entropy_type 1-p, whose mean is negative")
    if args.entropy_end_iter is not None and args.entropy_start_iter > args.entropy_end_iter:
        raise InputError(f"--entropy_start_iter {args.entropy_start_iter}: found --entropy_end_iter "
                         f"{args.entropy_end_iter}, expected a start that is not after the end")
    if args.freq_start and not args.freq_end_iter:
        raise InputError(f"--freq_start {args.freq_start}: found no --freq_end_iter, expected the step until which "
                         "the other frequencies are let in")
    if args.freq_end_iter and (args.i_embed or not args.multires):
        name = f"i_embed {args.i_embed}" if args.i_embed else "multires 0"
        raise InputError(f"--freq_end_iter {args.freq_end_iter}: found --{name}, expected frequencies to let in")
    if args.freq_start > args.multires:
        raise InputError(f"--freq_start {args.freq_start}: found --multires {args.multires}, expected at most that")
    n_samples = args.N_samples + args.N_importance
    if args.occlusion_lambda and args.occlusion_samples > n_samples:
        raise InputError(f"--occlusion_samples {args.occlusion_samples}: found {n_samples} samples of a ray "
                         "(N_samples + N_importance), expected at most that")
    if args.depth_smooth_lambda and (not args.N_entropy or args.N_entropy % 64):
        raise InputError(f"--depth_smooth_lambda: found --N_entropy {args.N_entropy}, expected a multiple of 64, whole "
                         "patches of 8 x 8 unseen pixels")
    if args.patience and not args.i_val:
        raise InputError(f"--patience {args.patience}: found no --i_val, expected the number of steps from one "
                         "measurement to the next")
    if args.random_bkgd and not args.white_bkgd:
        raise InputError("--random_bkgd: found no --white_bkgd, expected it, as random colours take the place of white")
    if args.visual_hull and not args.skip_empty:
        raise InputError("--visual_hull: found no --skip_empty, expected it, as the hull is a part of its grid")
    if args.exact_dense and (args.skip_empty or args.precision == "bf16"):
        name = "skip_empty" if args.skip_empty else f"precision {args.precision}"
        raise InputError(f"--{name}: not with --exact_dense, which evaluates everything in float32")
    if args.dataset_type == "llff":
        raise InputError("--dataset_type llff: not supported yet, expected blender or dtu")
    if args.no_reload and (args.render_only or args.eval_only):
        raise InputError("--no_reload: not with --render_only or --eval_only, which need a checkpoint")
    if args.ckpt_render_iter and args.ft_path:
        raise InputError("--ckpt_render_iter and --ft_path: found both, expected one of them")
    for name, value in vars(args).items():
        if isinstance(value, str) and name not in LEFT_OUT:
            check_writable_in_config(name, value)
    check_expname(args.expname)
    if args.render_only and args.eval_only:
        raise InputError("--render_only and --eval_only: found both, expected one of them")


def check_expname(expname: str) -> None:
    """Raise InputError unless a run's folder, basedir/expname, lies in basedir, and can be made."""
    path = Path(expname)
    if path.anchor or ".." in path.parts or not path.parts:
        raise InputError(f"--expname: found {expname!r}, expected a folder within basedir, such as synthetic/lego")
    length = len(os.fsencode(expname))
    if length > LONGEST_NAME:
        raise InputError(f"--expname: found a name of {length} bytes, expected at most {LONGEST_NAME}")


def check_writable_in_config(name: str, value: str) -> None:
    """A run is described by its args.txt: raise InputError for a value that a config file cannot hold."""
    try:
        held = configargparse.DefaultConfigFileParser().parse(set_lines(f"{name} = {value}"))
        value.encode()  # in the command line, bytes that are no text
    except (configargparse.ConfigFileParserException, UnicodeEncodeError):
        held = {}
    if held != {name: value} or "\0" in value:
        raise InputError(f"--{name}: found {value!r}, expected what a config file can hold (no quotes, # or [])")


def warnings(args: argparse.Namespace, changed: set[str]) -> list[str]:
    """What a user should know before the run starts. changed: the options that are not at their defaults."""
    notes = []
    named = [name for name in NO_EFFECT if name in changed]
    if named:
        notes.append(f"options with no effect (nor had they in the released code): {', '.join(named)}")
    for term, weight, usual in (
        ("smoothing", "smoothing_lambda", "1e-5"),
        ("entropy", "entropy_ray_zvals_lambda", "1e-3"),
    ):
        if getattr(args, term) and getattr(args, weight) == 1:
            notes.append(
                f"WARNING: {term} is on with {weight} 1, the default, which drowns the colour loss: "
                f"training is likely to diverge; the shipped configs use about {usual}"
            )
    looking = ("render_test", "render_train", "render_mypath", "ckpt_render_iter")
    looking = [name for name in looking if getattr(args, name)]
    if looking and not (args.render_only or args.eval_only):
        notes.append(f"options with no effect without render_only: {', '.join(looking)}")
    idle = idle_options(args, changed)
    if idle:
        notes.append("options with no effect here: " + "; ".join(idle))
    if args.precrop_iters and not args.no_batching:
        notes.append("precrop_iters has no effect without no_batching (as released)")
    if not args.mi_mlp and (args.netdepth <= 5 or (args.netdepth_fine <= 5 and args.N_importance)):
        notes.append("a network of depth 5 or less has no skip connection")
    return notes


def idle_options(args: argparse.Namespace, changed: set[str]) -> list[str]:
    """Options that were changed but need another one, each with which."""
    unseen = args.N_entropy and (args.entropy or args.distortion_lambda or args.depth_smooth_lambda)
    needs = {
        "entropy": (args.entropy, ("entropy_on", "entropy_skip_last", "entropy_start_iter", "entropy_ramp")),
        "smoothing with smoothing_activation norm": (
            args.smoothing and args.smoothing_activation == "norm", ("smoothing_floor",)),
        "i_val": (args.i_val, ("val_scene",)),
        "occlusion_lambda": (args.occlusion_lambda, ("occlusion_samples",)),
        "distortion_lambda": (args.distortion_lambda, ("distortion_start_iter",)),
        "a loss of unseen rays": (unseen, ("unseen_poses",)),
        "dataset_type llff": (args.dataset_type == "llff", ("factor", "spherify", "llffhold")),
        "dataset_type dtu": (args.dataset_type == "dtu", ("dtu_intrinsics",)),
        "dataset_type blender": (args.dataset_type == "blender", ("testskip", "allow_outside")),
    }
    return [f"{name} without {needed}" for needed, (there, names) in needs.items() if not there
            for name in names if name in changed]  # fmt: skip


def as_config(args: argparse.Namespace) -> str:
    """The options as the text of a config file that gives the same run."""
    given = {name: value for name, value in sorted(vars(args).items()) if name not in LEFT_OUT and value is not None}
    return "".join(f"{name} = {value}\n" for name, value in given.items())
