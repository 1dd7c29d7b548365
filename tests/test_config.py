"""Config: sections, values, and that every one is valid."""

from dataclasses import FrozenInstanceError, fields

import pytest

from infonerf.config import (
    DEFAULTS,
    NO_EFFECT,
    NOT_IN_PICTURES,
    REFUSED,
    SECTION_OF,
    Config,
    DataConfig,
    RunConfig,
    changed_since,
    declared,
    sections,
)
from infonerf.system.errors import InputError
from support.scenes import refused


def test_sections_and_declarations_cover_every_option_once():
    assert list(sections()) == [part.name for part in fields(Config)]
    for name, kind in sections().items():
        assert type(getattr(Config(), name)) is kind
        assert kind.__doc__ and "\n" not in kind.__doc__  # the title of its group in --help
    names = [name for _, name, _ in declared()]
    assert len(set(names)) == len(names)
    assert {(section, name) for section, name, _ in declared()} == {
        (section, part.name) for section, kind in sections().items() for part in fields(kind)
    }
    assert {name: SECTION_OF[name] for name in names} == {name: section for section, name, _ in declared()}
    assert SECTION_OF.keys() == DEFAULTS.keys() == set(names)
    assert not set(names) & {*NO_EFFECT, *REFUSED, "base", "config"}
    assert all(option.help for _, _, option in declared())


def test_values_are_those_of_the_sections():
    config = Config().replace(expname="x", N_rand=5, entropy=True, train_scene=[1, 2], lrate=0.1)
    assert config.values() == DEFAULTS | {
        "expname": "x", "N_rand": 5, "entropy": True, "train_scene": [1, 2], "lrate": 0.1,
    }  # fmt: skip
    for section, name, _ in declared():
        assert getattr(getattr(config, section), name) == config.values()[name]


def test_replacing_leaves_the_config_as_it_was():
    config = Config()
    other = config.replace(N_rand=5, seed=3, chunk=7)
    assert (other.batch.N_rand, other.batch.seed, other.rendering.chunk) == (5, 3, 7)
    assert config == Config() == other.replace(N_rand=4096, seed=0, chunk=32768) == config.replace()
    for change in (lambda: setattr(config, "batch", other.batch), lambda: setattr(config.batch, "N_rand", 5)):
        with pytest.raises(FrozenInstanceError):
            change()


def test_replacing_checks_again():
    """Within a section and across them; options that need each other can come together."""
    with refused("--visual_hull: found no --skip_empty"):
        Config().replace(visual_hull=True)
    hull = Config().replace(visual_hull=True, skip_empty=True)
    with refused("--visual_hull: found no --skip_empty"):
        hull.replace(skip_empty=False)
    with refused("--random_bkgd: found no --white_bkgd"):
        Config().replace(random_bkgd=True)
    random = Config().replace(random_bkgd=True, white_bkgd=True)
    with refused("--random_bkgd: found no --white_bkgd"):
        random.replace(white_bkgd=False)
    with refused("--occlusion_samples 20: found 12 samples"):
        Config().replace(occlusion_lambda=0.1, N_samples=8, N_importance=4)
    with refused("--expname: found '../x'"):
        Config().replace(expname="../x")
    with refused("--no_reload: not with --render_only"):
        Config().replace(eval_only=True).replace(no_reload=True)


def test_a_config_is_checked_when_it_is_made():
    with refused("--expname: found '/x'"):
        RunConfig(expname="/x")
    with refused("--patience 3: found no --i_val"):
        Config(stopping=type(Config().stopping)(patience=3))


@pytest.mark.parametrize("name", ["N_rnd", "base", "config", "batch", "shape", "no_coarse"])
def test_replacing_what_is_no_option(name):
    with pytest.raises(KeyError, match=name):
        Config().replace(**{name: 1})


def test_sections_that_are_equal_are_of_the_same_photographs():
    first = Config().replace(datadir="a", dataset_type="blender", train_scene=[1, 2])
    again = Config().replace(datadir="a", dataset_type="blender", train_scene=[1, 2], N_rand=5, expname="x")
    assert first.data == again.data and first != again
    assert first.data == DataConfig(datadir="a", dataset_type="blender", train_scene=[1, 2])
    for change in ({"datadir": "b"}, {"train_scene": [2, 1]}, {"half_res": True}, {"pixel_center": 0.5}):
        assert first.replace(**change).data != first.data


def test_identity_is_what_changes_a_picture_of_the_trained_run():
    """Not where the run is, nor how it is saved, looked at, or stopped; but the size of the pictures is."""
    config = Config().replace(expname="x", datadir="d", render_factor=2)
    identity = config.identity()
    assert identity["render_factor"] == 2
    assert not {name for name in identity if SECTION_OF[name] in NOT_IN_PICTURES} - {"render_factor"}
    assert {"run", "saving", "looking", "stopping"} == set(NOT_IN_PICTURES)
    assert DEFAULTS.keys() - identity.keys() == {
        "expname", "basedir", "device", "no_reload", "ft_path", "i_print", "i_weights", "keep_checkpoints", "i_testset",
        "i_img", "i_video", "wandb", "i_wandb", "wandb_group", "N_iters", "i_val", "val_scene", "patience",
        "render_only", "eval_only", "render_test", "render_train", "render_mypath", "ckpt_render_iter", "path", "view",
        "datadir", "maskdir", "allow_outside", "chunk", "netchunk", "cuda_graphs",
    }  # fmt: skip
    assert all(config.values()[name] == value for name, value in identity.items())
    same = config.replace(expname="y", datadir="e", N_iters=5, chunk=7, i_val=3, device="cpu")
    assert same.identity() == identity
    for change in ({"seed": 1}, {"testskip": 4}, {"precision": "fp32"}, {"render_factor": 3}, {"lrate": 0.1}):
        assert config.replace(**change).identity() != identity


def test_what_changed_since_the_checkpoint(tmp_path, monkeypatch):
    config = Config().replace(expname="x", datadir="d", N_rand=5)
    monkeypatch.chdir(tmp_path)
    assert changed_since(config.values(), config) == []
    assert changed_since({}, config) == []  # of a version that had none of the options
    other = config.replace(expname="y", i_print=1, render_factor=2, datadir=str(tmp_path / "d"))  # no part of the run
    assert changed_since(config.values(), other) == []
    lines = changed_since(config.values(), config.replace(N_rand=6, datadir="e"))
    assert lines == [
        f"changed since the checkpoint: datadir was {tmp_path}/d, now {tmp_path}/e",
        "changed since the checkpoint: N_rand was 5, now 6",
    ]


def test_errors_of_contradictions_are_one_line():
    wrong = (
        {"N_samples": 2, "N_importance": 4}, {"freq_start": 2}, {"patience": 3}, {"depth_smooth_lambda": 1.0},
        {"entropy_type": "1-p", "entropy_log_scaling": True}, {"exact_dense": True, "precision": "bf16"},
        {"ckpt_render_iter": 3, "ft_path": "x.tar"}, {"render_only": True, "eval_only": True}, {"expname": "x" * 300},
    )  # fmt: skip
    for options in wrong:
        with pytest.raises(InputError) as caught:
            Config().replace(**options)
        assert str(caught.value).isprintable()
        assert any(f"--{name}" in str(caught.value) for name in options)
