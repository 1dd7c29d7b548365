"""Checkpoint files: interchange with nerf-pytorch's layout, choice of the newest, atomic writing, bad files."""

import copy
import pickle
import random
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from infonerf.fields.field import CoarseFine
from infonerf.fields.nerf import NeRF
from infonerf.system.errors import InputError
from infonerf.training import checkpoint
from infonerf.training.generators import create_generators


class ForeignNeRF(nn.Module):
    """The modules of nerf-pytorch's network in its order, as docs/method.md, Network gives them."""

    def __init__(self, depth=8, width=16, point=63, view=27, use_viewdirs=True, outputs=5):
        super().__init__()
        sizes = [point] + [width + point if i == 5 else width for i in range(1, depth)]
        self.pts_linears = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.views_linears = nn.ModuleList([nn.Linear(width + (view if use_viewdirs else 0), width // 2)])
        if use_viewdirs:
            self.feature_linear = nn.Linear(width, width)
            self.alpha_linear = nn.Linear(width, 1)
            self.rgb_linear = nn.Linear(width // 2, 3)
        else:
            self.output_linear = nn.Linear(width, outputs)


def foreign_pair(use_viewdirs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pair = [ForeignNeRF(use_viewdirs=use_viewdirs), ForeignNeRF(use_viewdirs=use_viewdirs)]
    return pair, torch.optim.Adam([p for network in pair for p in network.parameters()], lr=5e-4, betas=(0.9, 0.999))


def our_networks(use_viewdirs=True, depth=8, width=16):
    generator = torch.Generator().manual_seed(2)
    make = {"depth": depth, "width": width, "use_viewdirs": use_viewdirs, "output_ch": 5, "generator": generator}
    networks = CoarseFine(NeRF(**make), NeRF(**make))
    return networks, torch.optim.Adam(networks.parameters(), lr=5e-4)


def updated(parameters, optimizer, scale):
    """One update with gradients that are a function of the weights."""
    for parameter in parameters:
        parameter.grad = scale * parameter.detach().sin()
    optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def fixed(state):
    """A part of a training whose state is always the same."""
    return SimpleNamespace(state_dict=lambda: state)


def save_ours(folder, step, networks, optimizer, **options):
    parts = {
        **checkpoint.network_parts(networks),
        "optimizer_state_dict": checkpoint.OptimizerPart(optimizer),
        "random_states": create_generators(0, torch.device("cpu")),
        "sampler": fixed({"seen": {"n": 9, "seed": 1, "cursor": 3}}),
    }
    return checkpoint.save(folder, step, options, parts)


def load_networks(found, networks):
    assert found.load(checkpoint.network_parts(networks)) == []


def load_optimizer(found, optimizer):
    """Whether the file has the optimizer's state."""
    return found.load({"optimizer_state_dict": checkpoint.OptimizerPart(optimizer)}) == []


@pytest.mark.parametrize("use_viewdirs", [True, False])
@pytest.mark.parametrize("age", ["new", "old"])
def test_a_released_file_loads_and_training_goes_on_as_theirs(tmp_path, use_viewdirs, age):
    pair, theirs = foreign_pair(use_viewdirs)
    their_parameters = [p for network in pair for p in network.parameters()]
    for scale in (1.0, -0.5, 2.0):
        updated(their_parameters, theirs, scale)
    state = copy.deepcopy(theirs.state_dict())
    if age == "old":  # torch 1.x: integer steps, fewer entries in the group
        for moments in state["state"].values():
            moments["step"] = int(moments["step"])
        keep = {"lr", "betas", "eps", "weight_decay", "amsgrad", "params"}
        state["param_groups"] = [{k: v for k, v in group.items() if k in keep} for group in state["param_groups"]]
    names = ("network_fn_state_dict", "network_fine_state_dict")
    content = {"global_step": 2, "optimizer_state_dict": state}
    content |= {name: network.state_dict() for name, network in zip(names, pair, strict=True)}
    torch.save(content, tmp_path / "000003.tar")

    found = checkpoint.read(checkpoint.newest(tmp_path))
    networks, ours = our_networks(use_viewdirs)
    load_networks(found, networks)
    assert load_optimizer(found, ours)
    assert (found.step, found.written_here) == (3, False)
    for mine, their in zip(
        updated(networks.parameters(), ours, 0.7), updated(their_parameters, theirs, 0.7), strict=True
    ):
        assert torch.equal(mine, their)


@pytest.mark.parametrize("use_viewdirs", [True, False])
def test_our_file_holds_what_the_released_code_needs(tmp_path, use_viewdirs):
    networks, ours = our_networks(use_viewdirs)
    updated(networks.parameters(), ours, 1.0)
    content = torch.load(save_ours(tmp_path, 1, networks, ours), weights_only=True)
    pair, theirs = foreign_pair(use_viewdirs)
    pair[0].load_state_dict(content["network_fn_state_dict"])
    pair[1].load_state_dict(content["network_fine_state_dict"])
    theirs.load_state_dict(content["optimizer_state_dict"])
    assert content["global_step"] == 1
    their_parameters = [p for network in pair for p in network.parameters()]
    for mine, their in zip(
        updated(networks.parameters(), ours, 0.7), updated(their_parameters, theirs, 0.7), strict=True
    ):
        assert torch.equal(mine, their)


OURS = {key: {} for key in checkpoint.OUR_KEYS} | {"global_step": 500}


@pytest.mark.parametrize(("name", "content", "step"), [
    ("000500.tar", {"global_step": 499}, 500),  # as the released code writes it
    ("model.tar", {"global_step": 499}, 500),  # renamed
    ("000500.tar", {"global_step": 500}, 500),  # a fork that counts completed updates
    ("7.tar", {"global_step": 499}, 500),  # renamed to another number
    ("000500.tar", OURS, 500),  # ours
    ("best.tar", OURS, 500),
])  # fmt: skip
def test_completed_updates(tmp_path, name, content, step):
    assert checkpoint.completed_updates(tmp_path / name, content) == step


def test_the_newest_is_chosen_by_its_integer_step(tmp_path):
    for name in ("000900.tar", "10000.tar", "001000.tar", "999999.tar.tmp", "target.tar", "note.txt", "x99999999.tar"):
        (tmp_path / name).write_text("")
    assert checkpoint.newest(tmp_path).name == "10000.tar"
    assert [step for step, _ in checkpoint.saved(tmp_path)] == [900, 1000, 10000]
    assert checkpoint.newest(tmp_path / "none") is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    networks, optimizer = our_networks()
    before = save_ours(tmp_path, 5, networks, optimizer).read_bytes()

    def fail(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_ours(tmp_path, 5, networks, optimizer)
    assert (tmp_path / "000005.tar").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["000005.tar"]


def test_without_a_fine_network(tmp_path):
    networks = CoarseFine(our_networks()[0].coarse, None)
    optimizer = torch.optim.Adam(networks.parameters())
    found = checkpoint.read(save_ours(tmp_path, 1, networks, optimizer))
    assert "network_fine_state_dict" not in found.content
    load_networks(found, networks)
    with pytest.raises(InputError, match="holds no fine network"):
        load_networks(found, our_networks()[0])


@pytest.mark.parametrize(("other", "expected"), [
    ({"width": 32}, r"alpha_linear.weight: found \(1, 16\), expected \(1, 32\)"),
    ({"depth": 7}, "pts_linears.7.bias: found .*expected none"),
    ({"use_viewdirs": False}, "alpha_linear.bias: found .*expected none"),
])  # fmt: skip
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, other, expected):
    found = checkpoint.read(save_ours(tmp_path, 1, *our_networks()))
    with pytest.raises(InputError, match=expected):
        load_networks(found, our_networks(**other)[0])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
@pytest.mark.parametrize("with_optimizer", [True, False])
def test_what_a_network_was_wrapped_in_is_no_part_of_its_names(tmp_path, prefix, with_optimizer):
    networks, optimizer = our_networks()
    updated(networks.parameters(), optimizer, 1.0)
    content = {"global_step": 6, "optimizer_state_dict": optimizer.state_dict() if with_optimizer else {}}
    for key, network in zip(checkpoint.NETWORK_KEYS.values(), networks, strict=True):
        content[key] = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save(content, tmp_path / "000007.tar")
    other, others = our_networks()
    found = checkpoint.read(tmp_path / "000007.tar")
    load_networks(found, other)
    assert load_optimizer(found, others) == with_optimizer
    assert all(map(torch.equal, other.parameters(), networks.parameters()))
    assert found.step == 7


def test_averaged_networks_are_unwrapped_too_and_others_left_alone(tmp_path):
    networks, _ = our_networks()
    wrapped = {f"module.{name}": value for name, value in networks.coarse.state_dict().items()}
    content = {"global_step": 1, "network_fn_state_dict": wrapped | {"x": torch.zeros(1)},
               "network_fn_average_state_dict": wrapped}  # fmt: skip
    torch.save(content, tmp_path / "1.tar")
    content = checkpoint.read(tmp_path / "1.tar").content
    assert content["network_fn_average_state_dict"].keys() == networks.coarse.state_dict().keys()
    assert content["network_fn_state_dict"].keys() == wrapped.keys() | {"x"}


def test_a_fine_network_that_the_run_lacks_is_named(tmp_path):
    networks, optimizer = our_networks()
    coarse = CoarseFine(networks.coarse, None)
    found = checkpoint.read(save_ours(tmp_path, 1, networks, optimizer))
    with pytest.raises(InputError, match=r"1.tar: holds a fine network \(network_fine_state_dict\), found --N_imp"):
        load_networks(found, coarse)
    found.content["network_fine_state_dict"] = None  # as other programs say that there is none
    load_networks(found, coarse)
    with pytest.raises(InputError, match=r"1.tar: holds no fine network .*, expected one as --N_importance is"):
        load_networks(found, networks)


def write_foreign(path, step):
    """A checkpoint of another program after `step` updates."""
    coarse = our_networks(depth=2, width=2)[0].coarse
    torch.save({"global_step": step - 1, "network_fn_state_dict": coarse.state_dict()}, path)


FOREIGN = {"model_200000.tar": 9, "latest.pth": 12, "ckpt-10.tar": 11, "000020.PT": 10, "000003.tar.bak": 30,
           "000003.tar.tmp": 40, "start.txt": 50}  # fmt: skip


def test_of_other_names_the_furthest_is_taken_and_each_is_named(tmp_path):
    lines = []
    assert checkpoint.newest_readable(tmp_path, lines.append, checkpoint.read) is None and lines == []
    for name, step in FOREIGN.items():
        write_foreign(tmp_path / name, step)
    (tmp_path / "images.tar").write_text("an archive")
    (tmp_path / "folder.tar").mkdir()
    found = checkpoint.newest_readable(tmp_path, lines.append, checkpoint.read)
    assert (found.path.name, found.step) == ("latest.pth", 12)
    warning, taken, passed_over = lines
    assert warning.startswith(f"WARNING: {tmp_path}/images.tar: cannot be read as a checkpoint")
    assert taken == f"{found.path}: taken, as no checkpoint there is named for its step (--no_reload starts afresh)"
    assert f"passed over in {tmp_path}" in passed_over
    assert ": 000003.tar.bak, 000020.PT, ckpt-10.tar, images.tar, model_200000.tar; --ft_path" in passed_over
    assert checkpoint.newest(tmp_path) is None


def test_beside_checkpoints_named_for_their_steps_others_are_passed_over(tmp_path):
    for name, step in {"model_200000.tar": 9, "000002.tar": 2, "000004.tar": 4}.items():
        write_foreign(tmp_path / name, step)
    (tmp_path / "latest.tar").symlink_to("000004.tar")
    lines = []
    assert checkpoint.newest_readable(tmp_path, lines.append, checkpoint.read).path.name == "000004.tar"
    [line] = lines
    assert ": model_200000.tar; --ft_path FILE takes one" in line
    assert {path.name for path in tmp_path.iterdir()} == {"model_200000.tar", "000002.tar", "000004.tar", "latest.tar"}


def test_what_only_looks_like_a_checkpoint_is_named_and_nothing_taken(tmp_path):
    (tmp_path / "a.tar").write_text("no checkpoint")
    lines = []
    assert checkpoint.newest_readable(tmp_path, lines.append, checkpoint.read) is None
    assert [line.split(":")[0] for line in lines] == ["WARNING", f"passed over in {tmp_path}, as not named for a step"]


class Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "attack", "no checkpoint", "not a dict", "missing"])
def test_bad_files_are_named_and_nothing_in_them_is_executed(tmp_path, damage):
    path = save_ours(tmp_path, 1, *our_networks())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "attack":
        torch.save({"global_step": 1, "network_fn_state_dict": Attack()}, path, pickle_module=pickle)
    elif damage in ("no checkpoint", "not a dict"):
        torch.save({"weights": {}} if damage == "no checkpoint" else [1, 2], path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_text("" if damage == "empty" else "no archive at all")
    with pytest.raises(InputError, match=r"000001\.tar") as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"global_step": -7}, "found -7 as global_step, expected an integer from 0"),
    ({"global_step": "7"}, "found '7' as global_step"),
    ({"options": 3}, "options: found 3, expected values by name"),
    ({"options": {3: 4}}, "options: found options that are none"),
], ids=str)  # fmt: skip
def test_odd_content_is_refused(tmp_path, change, message):
    path = save_ours(tmp_path, 1, *our_networks())
    content = torch.load(path, weights_only=True) | change
    del content["checksum"]
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"000001\.tar: {message}"):
        checkpoint.read(path)


@pytest.mark.parametrize("fused", [True, None])
def test_the_kernels_are_those_of_the_program_not_of_the_file(tmp_path, fused):
    """A file asks for no fused kernels; one that does is loaded without them where the program has none."""
    networks, _ = our_networks()
    optimizer = torch.optim.Adam(networks.parameters(), fused=fused)
    updated(networks.parameters(), optimizer, 1.0)
    found = checkpoint.read(save_ours(tmp_path, 1, networks, optimizer))
    content = torch.load(found.path, weights_only=True)
    [group] = content["optimizer_state_dict"]["param_groups"]
    assert group["fused"] is None
    group["fused"] = not fused
    del content["checksum"]
    torch.save(content, found.path)
    found = checkpoint.read(found.path)
    other = torch.optim.Adam(networks.parameters(), fused=fused)
    assert load_optimizer(found, other)
    assert [group["fused"] for group in other.param_groups] == [fused]


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    networks, optimizer = our_networks()
    found = checkpoint.read(save_ours(tmp_path, 1, networks, optimizer))
    with pytest.raises(InputError, match="optimizer state"):
        load_optimizer(found, torch.optim.Adam(networks.coarse.parameters()))
    assert not load_optimizer(checkpoint.Checkpoint(tmp_path, 1, {}), optimizer)


def test_set_aside_moves_later_checkpoints_only(tmp_path):
    for step in (10, 20, 30):
        checkpoint.path_of(tmp_path, step).write_text(str(step))
    assert checkpoint.set_aside(tmp_path, 30) is None
    aside = checkpoint.set_aside(tmp_path, 10)
    assert sorted(path.read_text() for path in aside.iterdir()) == ["20", "30"]
    assert checkpoint.newest(tmp_path).read_text() == "10"
    assert checkpoint.set_aside(tmp_path, 0) != aside


def damaged_copies(whole, n):
    """n copies of a file, each cut, or with a few bytes changed."""
    rng = random.Random(0)
    for k in range(n):
        if k % 2:
            yield whole[: rng.randrange(len(whole))]
        else:
            changed = bytearray(whole)
            for _ in range(rng.choice([1, 1, 4, 64])):
                changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
            yield bytes(changed)


def test_whatever_is_damaged_is_refused_or_harmless(tmp_path):
    networks, optimizer = our_networks(depth=2, width=2)
    updated(networks.parameters(), optimizer, 1.0)
    path = save_ours(tmp_path, 1, networks, optimizer, lrate=5e-4, train_scene=[1, 2])
    whole, original = path.read_bytes(), list(checkpoint.hashed_parts(checkpoint.read(path).content))
    refused = 0
    for damaged in damaged_copies(whole, 400):
        path.write_bytes(damaged)
        try:
            content = checkpoint.read(path).content
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert list(checkpoint.hashed_parts(content)) == original
    assert refused > 250


@pytest.mark.parametrize("change", [
    lambda content: content["network_fn_state_dict"]["alpha_linear.bias"].add_(1),
    lambda content: content["optimizer_state_dict"]["param_groups"][0].update(lr=1.0),
    lambda content: content["options"].update(lrate=1),
    lambda content: content.update(global_step=2),
    lambda content: content.pop("version"),
    lambda content: content["random_states"].update(samples=content["random_states"]["pixels"]),
])  # fmt: skip
def test_the_checksum_is_of_everything(tmp_path, change):
    networks, optimizer = our_networks(depth=2, width=2)
    updated(networks.parameters(), optimizer, 1.0)
    path = save_ours(tmp_path, 1, networks, optimizer, lrate=5e-4)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(InputError, match="damaged, found other content than its checksum was made of"):
        checkpoint.read(path)
    del content["checksum"]
    torch.save(content, path)
    checkpoint.read(path)


def test_compressed_parts_are_refused_before_they_are_unpacked(tmp_path):
    path, packed = tmp_path / "000001.tar", tmp_path / "000002.tar"
    torch.save({"global_step": 0, "network_fn_state_dict": {"weight": torch.zeros(10**5)}}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in whole.infolist():
            archive.writestr(member.filename, whole.read(member))
    assert torch.load(packed, weights_only=True)["network_fn_state_dict"]["weight"].shape == (10**5,)
    checkpoint.read(path)
    with pytest.raises(InputError, match="its parts are compressed"):
        checkpoint.read(packed)
