"""Names of picture folders, there and back."""

import pytest

from infonerf.system.picture_folders import PictureFolder, parse_picture_folder


@pytest.mark.parametrize(("folder", "name"), [
    (PictureFolder("testset", 5), "testset_000005"),
    (PictureFolder("renderonly_path", 1234567), "renderonly_path_1234567"),
    (PictureFolder("valset", 0, 8), "valset_000000_factor8"),
], ids=str)  # fmt: skip
def test_there_and_back(folder, name):
    assert folder.name == name
    assert parse_picture_folder(name) == folder


@pytest.mark.parametrize("name", ["000005.tar", "testset", "testset_5x", "superseded_1", "testset_1_factor", "a b_1"])
def test_other_names(name):
    assert parse_picture_folder(name) is None
