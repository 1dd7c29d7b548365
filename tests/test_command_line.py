"""Options: defaults, config files, overrides, checks, and that none is without a reader."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import run_nerf_helpers
from infonerf.command_line import as_text, create_parser, parse_options
from infonerf.config import DEFAULTS, NO_EFFECT, REFUSED, declared, sections
from infonerf.system.errors import InputError
from run_nerf_helpers import hidden_dtype
from support.runs import ROOT

CONFIGS = sorted((ROOT / "configs").glob("**/*.txt"))
LEGO = str(ROOT / "configs/infonerf/synthetic/lego.txt")
MINIMAL = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender"]

# The released options and their defaults (docs/method.md, Options).
RELEASED = {
    "basedir": "./logs/", "fewshot_seed": 0, "netdepth": 8, "netwidth": 256, "netdepth_fine": 8, "netwidth_fine": 256,
    "N_rand": 4096, "lrate": 5e-4, "lrate_decay": 250, "chunk": 32768, "netchunk": 65536, "no_batching": False,
    "no_reload": False, "ft_path": None, "N_entropy": 100, "entropy": False, "entropy_log_scaling": False,
    "entropy_ignore_smoothing": False, "entropy_end_iter": None, "entropy_type": "log2", "entropy_acc_threshold": 0.1,
    "computing_entropy_all": False, "entropy_ray_lambda": 1, "entropy_ray_zvals_lambda": 1, "smoothing": False,
    "near_c2w_type": "rot_from_origin", "near_c2w_rot": 5, "near_c2w_trans": 0.1, "smooth_pixel_range": None,
    "smooth_sampling_method": "near_pose", "smoothing_lambda": 1, "smoothing_activation": "norm",
    "smoothing_step_size": 5000, "smoothing_rate": 1, "smoothing_end_iter": None, "N_samples": 64, "N_importance": 0,
    "perturb": 1, "use_viewdirs": False, "i_embed": 0, "multires": 10, "multires_views": 4, "raw_noise_std": 0,
    "render_only": False, "eval_only": False, "render_test": False, "render_test_full": False, "ckpt_render_iter": None,
    "render_train": False, "render_mypath": False, "render_factor": 0, "render_pass": False, "precrop_iters": 0,
    "precrop_frac": 0.5, "dataset_type": "auto", "testskip": 8, "fewshot": 0, "shape": "greek", "white_bkgd": False,
    "half_res": False, "factor": 8, "no_ndc": False, "lindisp": False, "spherify": False, "llffhold": 8,
    "i_print": 100, "i_img": 500, "i_weights": 10000, "i_testset": 50000, "i_video": 50000, "wandb": False,
    "i_wandb": 100, "wandb_group": None, "debug": False, "N_iters": 200000, "alpha_model_path": None,
    "no_coarse": False, "train_scene": None, "test_scene": None, "expname": None, "datadir": None, "maskdir": None,
}  # fmt: skip
OURS = {"seed": 0, "device": "auto", "exact_dense": False, "precision": "auto", "skip_empty": False,
        "cuda_graphs": True,
        "density_bias": 0.0, "unseen_poses": "no_test", "pixel_center": 0.0, "dtu_intrinsics": "shared",
        "drop_alpha": False, "image_scale": 1.0, "fewshot_choice": "random", "allow_outside": False,
        "keep_checkpoints": 0, "near": None, "far": None, "path": None, "view": False}
BEYOND = {"random_bkgd": False, "carving_lambda": 0.0, "entropy_on": "alpha", "entropy_skip_last": False,
          "entropy_start_iter": 0, "entropy_ramp": 0, "freq_start": 0, "freq_end_iter": 0,
          "field": "nerf", "planes_resolution": 128, "planes_components": 16, "planes_tv": 0.0,
          "range_start": 0.5, "range_end_iter": 0,
          "occlusion_lambda": 0.0, "occlusion_samples": 20, "distortion_lambda": 0.0, "distortion_start_iter": 0,
          "smoothing_floor": 0.0, "visual_hull": False, "mi_mlp": False, "ema_decay": 0.0, "depth_smooth_lambda": 0.0,
          "i_val": 0, "val_scene": None, "patience": 0, "depth_prior": "points", "depth_prior_lambda": 0.0,
          "depth_prior_sigma": 0.01, "depth_prior_end_iter": 0, "N_depth": 64, "longest_side": 800, "normalize": True,
          "path": None, "view": False}


def defaults():
    return {action.dest: action.default for action in create_parser()._actions if action.dest not in ("help", "config")}


def write_config(folder, text):
    path = folder / "c.txt"
    path.write_text("expname = x\ndatadir = d\ndataset_type = blender\n" + text)
    return ["--config", str(path)]


def test_released_defaults_and_our_own_options():
    found = defaults()
    usable = {name: value for name, value in RELEASED.items() if name not in REFUSED}
    assert {name: found[name] for name in usable} == usable
    assert found.keys() - RELEASED.keys() == OURS.keys() | BEYOND.keys() | {"render_test_ray"}
    assert {name: found[name] for name in OURS | BEYOND} == OURS | BEYOND
    assert {name: DEFAULTS[name] for name in usable.keys() - NO_EFFECT.keys()} == {
        name: value for name, value in usable.items() if name not in NO_EFFECT
    }
    assert DEFAULTS.keys() | NO_EFFECT.keys() | {*REFUSED} == found.keys()
    assert {name: found[name] for name in DEFAULTS} == DEFAULTS


def test_every_option_is_read_or_listed_as_without_effect():
    """Outside of the checks of options against each other; a property of a section may read it for others."""
    folders = [ROOT / name for name in ("infonerf", "tools", "benchmarks")]
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    parts = [path.read_text() for path in paths if path != ROOT / "infonerf/config.py"]
    members = (member for section in sections().values() for member in vars(section).values())
    parts += [inspect.getsource(member.fget) for member in members if isinstance(member, property)]
    code = "\n".join(parts)
    read = set(re.findall(r"\.(\w+)\b", code))
    listed = {*NO_EFFECT, *REFUSED}
    unread = defaults().keys() - read - listed
    assert not unread
    assert not {*NO_EFFECT, *REFUSED} & DEFAULTS.keys()  # so nothing can


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_shipped_configs_parse(path):
    config, notes = parse_options(["--config", str(path)])
    data, expname = config.data, config.run.expname
    sample = path.stem.startswith("sample") or path.parent.name == "sample"
    kind = {"blender": "nerf_synthetic", "dtu": "DTU", "llff": "nerf_llff_data", "auto": "data"}[data.dataset_type]
    assert Path(data.datadir).parent.name == ("data" if sample else kind)
    assert sample or data.fewshot_choice == "even" or len(data.train_scene or []) == data.fewshot
    assert not any(note.startswith("WARNING") for note in notes)
    assert path.relative_to(ROOT / "configs").with_suffix("").parts[0] in expname.split("/")
    assert path.stem in expname.split("/")


def test_nerf_configs_differ_from_infonerf_only_in_the_losses():
    for scene in ("synthetic/lego", "dtu/scan114", "llff/fern", "sample"):
        nerf, infonerf = (
            parse_options(["--config", str(ROOT / f"configs/{method}/{scene}.txt")])[0].values()
            for method in ("nerf", "infonerf")
        )
        different = {name for name in nerf if nerf[name] != infonerf[name]} - {"expname"}
        assert all(re.match("entropy|N_entropy|smoothing", name) for name in different)
        assert not nerf["entropy"]
        assert not nerf["smoothing"]


@pytest.mark.parametrize("method", ["best", "infonerf", "nerf"])
def test_configs_of_the_field_s_protocol_on_dtu(method):
    paths = sorted((ROOT / f"configs/{method}/dtu15").iterdir())
    scans = [8, 21, 30, 31, 34, 38, 40, 41, 45, 55, 63, 82, 103, 110, 114]
    assert {path.stem for path in paths} == {f"scan{scan}" for scan in scans}
    for path in paths:
        config, _ = parse_options(["--config", str(path)])
        data, scan = config.data, path.stem
        assert (data.datadir, data.maskdir) == (f"./data/DTU/{scan}", f"./data/DTU/{scan}/mask")
        assert sorted(data.train_scene) == [22, 25, 28]
        others = {0, *range(3, 9), 13, *range(16, 22), 22, 25, 28, *range(36, 41), 44, 48}
        assert data.test_scene == [view for view in range(49) if view not in others]
        assert config.run.expname == f"dtu15/{method}/{scan}"
        assert 0 < config.values()["i_testset"] <= config.stopping.N_iters


def test_command_line_wins_over_the_config():
    given = ["--entropy", "False", "--N_rand=7", "--train_scene", "1", "2", "3", "4"]
    config, _ = parse_options(["--config", LEGO, *given])
    assert (config.losses.entropy, config.batch.N_rand) == (False, 7)
    assert (config.data.train_scene, config.batch.no_batching) == ([1, 2, 3, 4], True)


def test_flags_and_lists_in_a_config(tmp_path):
    text = "entropy = True\nsmoothing = False\nno_batching\ntrain_scene = [26, 86, 2, 55]\ntest_scene = [-1]  # others"
    config, _ = parse_options(write_config(tmp_path, text + "\nentropy_ray_zvals_lambda = 0.001"))
    assert (config.losses.entropy, config.losses.smoothing, config.batch.no_batching) == (True, False, True)
    assert (config.data.train_scene, config.data.test_scene) == ([26, 86, 2, 55], [-1])


def test_as_text_round_trip(tmp_path):
    config, _ = parse_options(["--config", LEGO, "--smoothing", "--smoothing_lambda", "1e-5", "--seed", "3"])
    path = tmp_path / "args.txt"
    path.write_text(as_text(config))
    again, _ = parse_options(["--config", str(path)])
    assert again == config


def test_options_without_effect_are_named_once(tmp_path):
    text = "shape = car\nentropy_ray_lambda = 0.5\nrender_pass = True\nrender_test_ray = True\n"
    _, notes = parse_options(write_config(tmp_path, text))
    assert len([note for note in notes if "no effect" in note]) == 1
    text = " ".join(notes)
    for name in ("shape", "entropy_ray_lambda", "render_pass", "render_test_ray"):
        assert text.count(name) == 1
    assert parse_options(MINIMAL)[1] == []


@pytest.mark.parametrize(("options", "warned"), [
    (["--smoothing"], True),
    (["--smoothing", "--smoothing_lambda", "1e-5"], False),
    (["--smoothing", "--smoothing_lambda", "1"], True),
    (["--entropy"], True),
    (["--entropy", "--entropy_ray_zvals_lambda=0.001"], False),
], ids=str)  # fmt: skip
def test_a_lambda_left_at_its_default_of_one_is_warned_of(options, warned):
    _, notes = parse_options(MINIMAL + options)
    assert any(note.startswith("WARNING") for note in notes) == warned


@pytest.mark.parametrize(("options", "expected"), [
    ([], "expname.*configs/infonerf"),
    (["--expname", "x"], "datadir.*not given"),
    (["--config", "nowhere.txt"], r"config nowhere.txt: cannot be read \(No such file"),
    (["--config", "."], r"config .: cannot be read \(Is a directory"),
    ([*MINIMAL, "--N_rnd", "3"], "--N_rnd.*mean --N_rand"),
    ([*MINIMAL, "--quite_unknown"], "unknown option '--quite_unknown'"),
    ([*MINIMAL, "stray"], "unknown option 'stray'"),
    ([*MINIMAL, "--N_rand", "x"], "N_rand: found 'x', expected an integer >= 1"),
    ([*MINIMAL, "--N_rand", "0"], "N_rand: found '0', expected an integer >= 1"),
    ([*MINIMAL, "--N_rand", "2.5"], "N_rand: found '2.5'"),
    ([*MINIMAL, "--N_rand", "1" * 400], "N_rand: found '1+', expected an integer >= 1 and <= 1000000$"),
    ([*MINIMAL, "--chunk=--"], "chunk: found '--', expected a value"),
    ([*MINIMAL, "--lrate", "nan"], "lrate: found 'nan', expected a number > 0"),
    ([*MINIMAL, "--lrate", "inf"], "lrate: found 'inf'"),
    ([*MINIMAL, "--precrop_frac", "1.5"], "precrop_frac: found '1.5', expected a number > 0 and <= 1"),
    ([*MINIMAL, "--entropy", "perhaps"], "entropy: found 'perhaps', expected True or False"),
    ([*MINIMAL, "--entropy_type", "log3"], "entropy_type.*log3"),
    ([*MINIMAL, "--train_scene", "a"], "train_scene: found 'a', expected an integer"),
    ([*MINIMAL, "--entropy_acc_threshold", "nan"], "entropy_acc_threshold: found 'nan', expected a number"),
    ([*MINIMAL, "--no_coarse"], "no_coarse: not supported"),
    ([*MINIMAL, "--alpha_model_path", "p"], "alpha_model_path: not supported"),
    ([*MINIMAL, "--smoothing", "--smooth_sampling_method", "near_pixel"], "smooth_pixel_range: not given"),
    ([*MINIMAL, "--N_importance", "4", "--N_samples", "2"], "N_samples 2: expected at least 3"),
    ([*MINIMAL, "--entropy_type", "1-p", "--entropy_log_scaling"], "entropy_log_scaling: not with"),
    ([*MINIMAL, "--render_only", "--eval_only"], "found both"),
    ([*MINIMAL, "--random_bkgd"], "random_bkgd: found no --white_bkgd, expected it"),
    ([*MINIMAL, "--entropy_start_iter", "9", "--entropy_end_iter", "8"], "start_iter 9: found --entropy_end_iter 8"),
    ([*MINIMAL, "--range_start", "0"], "range_start: found '0', expected a number > 0 and <= 1"),
    ([*MINIMAL, "--patience", "3"], "patience 3: found no --i_val"),
    ([*MINIMAL, "--freq_start", "2"], "freq_start 2: found no --freq_end_iter"),
    ([*MINIMAL, "--freq_end_iter", "9", "--i_embed", "-1"], "freq_end_iter 9: found --i_embed -1"),
    ([*MINIMAL, "--freq_end_iter", "9", "--multires", "0"], "freq_end_iter 9: found --multires 0"),
    ([*MINIMAL, "--freq_end_iter", "9", "--freq_start", "11"], "freq_start 11: found --multires 10"),
    ([*MINIMAL, "--occlusion_lambda", "1", "--occlusion_samples", "65"], "occlusion_samples 65: found 64 samples"),
    ([*MINIMAL, "--depth_smooth_lambda", "1"], "depth_smooth_lambda: found --N_entropy 100, expected a multiple of 64"),
    ([*MINIMAL, "--depth_smooth_lambda", "1", "--N_entropy", "0"], "depth_smooth_lambda: found --N_entropy 0"),
], ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "")  # fmt: skip
def test_bad_options(options, expected):
    with pytest.raises(InputError, match=expected) as caught:
        parse_options(options)
    assert "\n" not in str(caught.value)


NUMERIC = {name: option for _, name, option in declared() if option.parse}


@pytest.mark.parametrize("name", NUMERIC)
def test_numbers_that_are_far_out_are_refused_with_their_bounds(name):
    expected = rf"--{name}: found '.*', expected (an integer|a number).* <= [\d.e+]+(;|$)"
    for value in ("4294967296", "9223372036854775808", "1" * 5000, "1e31", "nan", "inf", "-inf", "-1000000001", "x"):
        if name == "lrate" and value.isdigit() and len(value) < 20:
            continue  # up to 1e30: some want to see what diverges
        with pytest.raises(InputError, match=expected):
            parse_options([*MINIMAL, f"--{name}={value}"])


@pytest.mark.parametrize(("options", "expected"), [
    ("--N_rand 1000000 --N_samples 10000", "--N_rand 1000000, --N_samples 10000: found 2e.10 points of a step, "
     "expected at most 1e.09"),
    ("--N_entropy 1000000 --entropy --N_importance 10000", "--N_entropy 1000000, --N_importance 10000: found"),
    ("--N_depth 1000000 --depth_prior_lambda 1 --N_samples 9000", "--N_depth 1000000, --N_samples 9000: found"),
    ("--chunk 10000000 --N_samples 200", "--chunk 10000000, --N_samples 200: found 4e.09 points at a time"),
    ("--netdepth 100 --netwidth 16384", "--netdepth 100, --netwidth 16384: found 2.68e.10 weights of a network"),
    ("--netwidth_fine 16384", "--netwidth_fine 16384: found 2.15e.09 weights"),
    ("--netchunk 10000000 --netwidth 4096", "--netchunk 10000000, --netwidth 4096: found 3.28e.11 channels at a time"),
    ("--field planes --planes_resolution 4096 --planes_components 99", "--planes_resolution 4096, --planes_components "
     "99: found 6.64e.09 features"),
    ("--smoothing_rate 10 --smoothing_step_size 1", "--smoothing_rate 10: found --smoothing_step_size 1, which makes "
     "the weight 1e200000 times as large by step 200000"),
])  # fmt: skip
def test_sizes_together_are_bounded_and_named(options, expected):
    with pytest.raises(InputError, match=expected) as caught:
        parse_options([*MINIMAL, *options.split()])
    assert str(caught.value).isprintable()


def test_large_sizes_that_some_machine_has():
    for options in ("--N_rand 1000000", "--N_samples 1024 --N_rand 65536", "--netwidth 8192", "--netdepth 100",
                    "--chunk 1048576", "--netchunk 10000000", "--smoothing_rate 2 --smoothing_step_size 10000",
                    "--field planes --planes_resolution 2048 --planes_components 48"):  # fmt: skip
        parse_options([*MINIMAL, *options.split()])


@pytest.mark.parametrize("text", ["N_rnd = 3", "N_rand = many", "entropy = perhaps", "train_scene = [1, x]", "= 3"])
def test_bad_config_lines(tmp_path, text):
    with pytest.raises(InputError) as caught:
        parse_options(write_config(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["N_rand = many", "entropy = perhaps", "train_scene = [1, x]"])
def test_a_wrong_value_is_told_with_its_file(tmp_path, text):
    config = write_config(tmp_path, text)
    name = text.split()[0]
    with pytest.raises(InputError, match=rf"^{config[1]}: argument --{name}: found "):
        parse_options(config)
    with pytest.raises(InputError, match=rf"^argument --{name}: found 'none'"):
        parse_options([*config, f"--{name}", "none"])


def test_a_line_that_the_parser_would_take_hours_for(tmp_path):
    with pytest.raises(InputError, match="found a line of 100005 characters, expected at most 10000"):
        parse_options(write_config(tmp_path, "a = 'b" + " " * 99_998 + "c"))


def test_a_config_that_is_no_text(tmp_path):
    path = tmp_path / "c.txt"
    path.write_bytes(b"\xff\xfe\x00expname")
    with pytest.raises(InputError, match="not a text file"):
        parse_options(["--config", str(path)])


def test_help_marks_what_the_released_code_lacks(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    helped = {part[0]: part[1] for part in re.findall(r"(?m)^  --(\w+)((?:.*\n)(?:   .*\n)*)", capsys.readouterr().out)}
    assert helped.keys() == defaults().keys() | {"config"}
    assert {name for name, text in helped.items() if "(+)" in text} == OURS.keys() | BEYOND.keys()


@pytest.mark.parametrize("comment", ["", "  # afresh", "\t; afresh", " #", " ;None"])
@pytest.mark.parametrize("line", ["{} = None", "{}=None", "--{}: None", "{} None", "{} = 'None'"])
def test_none_is_the_default_of_every_option(tmp_path, line, comment):
    names = defaults().keys() - {"expname", "datadir", "dataset_type"}
    given = parse_options(write_config(tmp_path, "\n".join(line.format(name) + comment for name in sorted(names))))
    assert given == parse_options(MINIMAL)


def test_none_wins_over_a_base_and_over_a_config(tmp_path):
    lines = "maskdir = m\nsmooth_pixel_range = 3\nN_rand = 5\ntrain_scene = 1 2\nentropy = True\n"
    base = write_config(tmp_path, lines)
    named = ("maskdir", "smooth_pixel_range", "N_rand", "train_scene", "entropy")
    (tmp_path / "top.txt").write_text("base = c.txt\n" + "".join(f"{name} = None  # as usual\n" for name in named))
    for words in (["--config", str(tmp_path / "top.txt")], [*base, *(f"--{name}=None" for name in named)]):
        assert parse_options(words)[0] == parse_options(MINIMAL)[0]


LISTS = ["26 8 2 55", "26, 8, 2, 55", "26,8,2,55", "26 ,8 , 2,55,", "[26, 8, 2, 55]", "[26 8 2 55]", "( 26,8,2,55 )",
         "'26 8 2 55'", '"26, 8, 2, 55"', "'[26, 8, 2, 55]'", '["26", "8", "2", "55"]', "['26', '8', '2', '55']",
         "26\t8  2 55", "[26, 8, 2, 55,]"]  # fmt: skip


@pytest.mark.parametrize("text", LISTS)
def test_a_list_in_any_usual_form(tmp_path, text):
    """In a config, in its base, and on the command line, as one word and as the shell splits it."""
    expected = [26, 8, 2, 55]
    for line in (f"train_scene = {text}", f"train_scene: {text}  # four", f"--train_scene {text}\t; [1, 2]"):
        config = write_config(tmp_path, line)
        (tmp_path / "top.txt").write_text("base = c.txt\nseed = 1")
        assert parse_options(config)[0].data.train_scene == expected
        assert parse_options(["--config", str(tmp_path / "top.txt")])[0].data.train_scene == expected
    for words in ([text], text.split()):
        config, _ = parse_options([*MINIMAL, "--train_scene", *words, "--seed", "3"])
        assert (config.data.train_scene, config.batch.seed) == (expected, 3)
    (tmp_path / "args.txt").write_text(as_text(config))
    assert parse_options(["--config", str(tmp_path / "args.txt")])[0] == config


@pytest.mark.parametrize(("text", "expected"), [
    ("7", [7]), ("[7]", [7]), ("[]", []), ("[ ]", []), ("-1", [-1]), ("[-1]", [-1]), ("(3, -1)", [3, -1]),
])  # fmt: skip
def test_short_lists(tmp_path, text, expected):
    assert parse_options(write_config(tmp_path, f"train_scene = {text}"))[0].data.train_scene == expected
    assert parse_options([*MINIMAL, "--train_scene", text])[0].data.train_scene == expected


@pytest.mark.parametrize("text", ["1,,2", "1, x", "[1, 2", "1 2]", "[1, 2) ", "1;2", "1.5", "None 1", ",", "26 .. 30"])
def test_what_is_no_list_is_told_with_the_form_of_one(tmp_path, text):
    for words in (write_config(tmp_path, f"train_scene = {text}"), [*MINIMAL, "--train_scene", text]):
        with pytest.raises(InputError, match=r"--train_scene: found '.*', expected an integer.*of the form 26 86 2 55"):
            parse_options(words)


@pytest.mark.parametrize(("text", "value"), [
    (" = a#b", "a#b"), ("=a;b/#c", "a;b/#c"), (": a#b # c", "a#b"), (" a b ; c", "a b"), (" = a #b", "a"),
    (" = '#a b'", "#a b"), ("=#a", "#a"), (" = #a", ""), (" =\t; a", ""), (' = "a # b"', "a # b"),
])  # fmt: skip
def test_a_comment_begins_after_a_space(tmp_path, text, value):
    config, _ = parse_options(write_config(tmp_path, f"maskdir{text}\nno_batching  # a view a step\n"))
    assert (config.data.maskdir, config.batch.no_batching) == (value, True)


@pytest.mark.parametrize("name", ["[a, b]", "a\nlrate = 1", "a\rb", "\0"])
def test_names_that_a_config_cannot_hold_are_refused(name):
    for option in ("expname", "basedir", "datadir", "wandb_group"):
        with pytest.raises(InputError, match=f"--{option}: .*expected what a config file can hold") as caught:
            parse_options([*MINIMAL, f"--{option}", name])
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["sp a ü/x-1", "a\u2028b", "a\x85b", "-x", "a/b/c", "a/./b", "..a/b..", "True",
                                  "a # b", "a#b", "#1", "; x", '"quoted"', "it's", "'a", " a", "a [1]"])  # fmt: skip
def test_names_that_a_config_can_hold_are_held(tmp_path, name):
    config, _ = parse_options([*MINIMAL, f"--expname={name}"])
    (tmp_path / "args.txt").write_text(as_text(config), encoding="utf-8")
    assert parse_options(["--config", str(tmp_path / "args.txt")])[0].run.expname == config.run.expname == name


@pytest.mark.parametrize(("name", "expected"), [
    ("/tmp/x", "found '/tmp/x', expected a folder within basedir"),
    ("../x", "found '../x', expected a folder within basedir"),
    ("a/../../x", "expected a folder within basedir"),
    (".", "expected a folder within basedir"),
    ("x" * 300, "found a name of 300 bytes, expected at most 200"),
    ("ü" * 150, "found a name of 300 bytes"),
    ("a/" * 150, "found a name of 300 bytes"),
], ids=lambda text: text[:10])  # fmt: skip
def test_a_run_stays_in_basedir(name, expected):
    with pytest.raises(InputError, match=f"--expname: .*{expected}"):
        parse_options([*MINIMAL, f"--expname={name}"])


def test_rendering_options_are_said_to_do_nothing_in_training():
    assert "render_train" in " ".join(parse_options([*MINIMAL, "--render_train"])[1])
    assert parse_options([*MINIMAL, "--render_train", "--render_only"])[1] == []
    assert "render_train" in " ".join(parse_options([*MINIMAL, "--render_train", "--eval_only"])[1])
    assert parse_options([*MINIMAL, "--ckpt_render_iter", "3", "--eval_only"])[1] == []
    [note] = parse_options([*MINIMAL, "--ckpt_render_iter", "3"])[1]
    assert "ckpt_render_iter without render_only or eval_only" in note
    for wrong in (["--render_only", "--no_reload"], ["--eval_only", "--ckpt_render_iter", "3", "--ft_path", "x.tar"]):
        with pytest.raises(InputError):
            parse_options([*MINIMAL, *wrong])


@pytest.mark.parametrize(("given", "expected"), [
    ([], torch.bfloat16), (["--precision", "fp32"], None), (["--exact_dense"], None),
], ids=str)  # fmt: skip
def test_automatic_precision(monkeypatch, given, expected):
    """bfloat16 where the hardware has it; the reference is always of float32."""
    monkeypatch.setattr(run_nerf_helpers, "has_bfloat16", lambda device: True)
    config, _ = parse_options([*MINIMAL, *given])
    assert hidden_dtype(config.rendering, torch.device("cpu")) == expected


def test_the_reference_is_not_of_bfloat16():
    with pytest.raises(InputError, match="--precision bf16: not with --exact_dense"):
        parse_options([*MINIMAL, "--exact_dense", "--precision", "bf16"])


@pytest.mark.parametrize(("given", "named"), [
    (["--entropy_ramp", "5"], "entropy_ramp without entropy"),
    (["--occlusion_samples", "5"], "occlusion_samples without occlusion_lambda"),
    (["--distortion_start_iter", "5"], "distortion_start_iter without distortion_lambda"),
    (["--depth_prior_sigma", "0.1"], "depth_prior_sigma without depth_prior_lambda"),
    (["--depth_prior", "files", "--depth_prior_lambda", "0.1"], None),
    (["--smoothing_floor", "0.01"], "smoothing_floor without smoothing with smoothing_activation norm"),
    (["--smoothing_floor", "0.01", "--smoothing", "--smoothing_activation", "softmax"],
     "smoothing_floor without smoothing with smoothing_activation norm"),
    (["--smoothing_floor", "0.01", "--smoothing"], None),
    (["--unseen_poses", "spread", "--entropy", "--N_entropy", "0"], "unseen_poses without a loss of unseen rays"),
    (["--unseen_poses", "spread", "--entropy", "--entropy_ramp", "5"], None),
    (["--factor", "4"], "factor without dataset_type llff"),
    (["--dtu_intrinsics", "per_view"], "dtu_intrinsics without dataset_type dtu"),
    (["--dataset_type", "dtu", "--testskip", "4"], "testskip without dataset_type blender or capture"),
    (["--longest_side", "4"], "longest_side without dataset_type capture"),
    (["--normalize", "False", "--dataset_type", "capture", "--testskip", "2"], None),
    (["--normalize", "False", "--dataset_type", "auto", "--testskip", "2", "--factor", "4"], None),
], ids=str)  # fmt: skip
def test_options_that_need_another(given, named):
    _, notes = parse_options([*MINIMAL, *given])
    expected = [f"options with no effect here: {named}"] if named else []
    assert [note for note in notes if "no effect here" in note] == expected


@pytest.mark.parametrize("weight", [None, "1", "0.5"])
def test_an_args_txt_is_told_as_much_as_the_options_it_came_from(tmp_path, weight):
    """It holds every option, those too that nobody gave."""
    given = ["--smoothing", *(["--smoothing_lambda", weight] if weight else [])]
    config, notes = parse_options([*MINIMAL, *given])
    (tmp_path / "args.txt").write_text(as_text(config))
    assert parse_options(["--config", str(tmp_path / "args.txt")])[1] == notes
    assert any("smoothing_lambda 1, the default" in note for note in notes) == (weight != "0.5")
