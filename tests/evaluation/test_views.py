"""Evaluating views of one scene that differ in size, after a training on such."""

import threading
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.evaluation.metrics import psnr
from infonerf.evaluation.views import evaluate_views, looked_at
from infonerf.rendering.pictures import render_path, thumbnails, video_cameras
from infonerf.rendering.renderer import Image
from infonerf.system.ranks import Ranks
from run_nerf import create_trainer
from support.runs import NETWORK, RAYS
from support.scenes import memory_scene

SIZES = [(16, 20), (12, 14), (11, 24), (20, 13), (14, 14), (18, 12)]


@pytest.mark.parametrize("batching", [[], ["--no_batching"]], ids=["batching", "no_batching"])
def test_views_that_differ_in_size_are_trained_on_and_measured(tmp_path, batching):
    scene = memory_scene(sizes=SIZES, train=(0, 1, 2))
    scene = replace(scene, split=replace(scene.split, test=(3, 4, 5)))
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", *NETWORK, *RAYS,
                               "--entropy", "--skip_empty", *batching])  # fmt: skip
    trainer = create_trainer(config, scene, torch.device("cpu"))
    for _ in range(3):
        trainer.train_step()
    renderer = trainer.picture_renderer()
    record, n_rendered = evaluate_views(renderer, scene, (3, 4, 5), tmp_path, step=3, kind="testset", options={})
    assert (n_rendered, record.render_size) == (3, (13, 20))
    for view in (3, 4, 5):
        image = iio.imread(tmp_path / f"v_{view}.png")
        assert image.shape[:2] == SIZES[view]
        truth = scene.photographs.image(view)
        assert record.views[f"v_{view}"]["psnr"] == pytest.approx(psnr(image / 255, truth), abs=0.05)
    half_folder = tmp_path / "half"
    half_folder.mkdir()
    half, _ = evaluate_views(renderer, scene, (3, 4), half_folder, step=3, kind="testset", options={}, factor=2)
    assert iio.imread(tmp_path / "half/v_4.png").shape[:2] == (7, 7)
    assert len(half.views) == 2


def test_a_scene_without_a_path_is_filmed_through_its_training_cameras(tmp_path):
    scene = memory_scene(sizes=SIZES)
    assert scene.path is None
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", *NETWORK, *RAYS])
    renderer = create_trainer(config, scene, torch.device("cpu")).picture_renderer()
    assert {image.dtype for image in thumbnails(renderer, scene).values()} == {np.dtype(np.uint8)}
    render_path(renderer, scene, video_cameras(scene), tmp_path, 4)
    assert iio.imread(tmp_path / "rgb.gif", index=0).shape[:2] == (4, 5)


@pytest.mark.parametrize("beside", [False, True])
def test_views_are_looked_at_in_their_order(beside):
    """In a thread, while the next one is rendered; what goes wrong there is heard of."""
    looks, events = threading.Event(), []

    def rendered():
        for view in range(3):
            if view == 1 and beside:
                assert looks.wait(10)  # the first view is looked at before the second one is rendered
            events.append(("rendered", view))
            yield view, Image(*[torch.full((2, 2), view)] * 3)

    def look(view, image):
        looks.set()
        if view == 2:
            raise OSError("no space")
        return int(image.rgb.sum()), threading.current_thread() is threading.main_thread()

    found = looked_at(rendered(), look, Ranks.alone(), beside)
    assert [next(found), next(found)] == [(0, (0, not beside)), (1, (4, not beside))]
    with pytest.raises(OSError, match="no space"):
        next(found)
    assert events == [("rendered", view) for view in range(3)]
