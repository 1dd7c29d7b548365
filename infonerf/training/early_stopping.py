"""Early stopping: the PSNR of held-out views, neither training nor test views, and when it has ceased to rise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infonerf.evaluation.estimates import DrawnRays, psnr_of_rays
from infonerf.rendering.renderer import Renderer
from infonerf.scene.scene import Scene
from infonerf.scene.splits import check_views
from infonerf.system.errors import InputError
from infonerf.system.ranks import Ranks

HELD_OUT_RAYS = 4096  # of all held-out views together


def held_out_views(scene: Scene, named: Sequence[int] | None) -> tuple[int, ...]:
    """The views `named` (val_scene), else the scene's validation views.

    Raises InputError where there are none, or one of them is trained on or tested on.
    """
    if named:
        check_views(list(named), len(scene.view_names), "val_scene")
        for kind, views in (("training", scene.split.train), ("test", scene.split.test)):
            if shared := set(named) & set(views):
                raise InputError(f"--val_scene: view {min(shared)} is a {kind} view, expected others")
        return tuple(named)
    if not scene.split.val or set(scene.split.val) & set(scene.split.test):
        raise InputError(f"--i_val: {scene.name} has no validation views, expected --val_scene to name some that "
                         "are neither trained on nor tested on")
    return scene.split.val


@dataclass
class HeldOut:
    """Rays of held-out views, the same at every measurement, and the best of their PSNRs so far.

    patience: the training ends after so many measurements in a row without a better one; 0: never.
    waited: how many there were since step `best_step`.
    """

    views: tuple[int, ...]
    drawn: list[DrawnRays]
    patience: int
    best: float = -math.inf
    best_step: int = 0
    waited: int = 0

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.waited

    def measure(self, renderer: Renderer, step: int, ranks: Ranks | None = None) -> float:
        """The rays' PSNR in dB (the mean of the views') after `step` updates, which is noted; the first rank's."""
        psnr = (ranks or Ranks.alone()).of_first(lambda: psnr_of_rays(renderer, self.drawn)["psnr"])
        if psnr > self.best:
            self.best, self.best_step, self.waited = psnr, step, 0
        else:
            self.waited += 1
        return psnr

    def state_dict(self) -> dict:
        return {"views": list(self.views), "best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict) -> None:
        """Of other views nothing is taken over."""
        if list(self.views) == state["views"]:
            self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
