"""A training with a page beside it: `run_nerf.py --view`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from infonerf.scene.scene import Scene
from infonerf.system.logs import say
from infonerf.viewer.beside import SHARE, Beside
from infonerf.viewer.frames import FIRST, Source
from infonerf.viewer.page import Page, Shown
from infonerf.viewer.path_tab import PathTab
from infonerf.viewer.server import HERE
from infonerf.viewer.training_tab import TrainingTab

PORT = 8080


class Watch:
    """The page of a training. source: what is rendered with now. n_steps: of the training. alone: whether no other
    process waits for this one. A page that fails is left, and the training goes on."""

    def __init__(self, name: str, folder: Path, scene: Scene, source: Callable[[], Source], entropy: Callable,
                 n_steps: int, alone: bool):  # fmt: skip
        self.page = Page([Shown(name, folder, scene, source, 0)], entropy, HERE, PORT, FIRST * SHARE)
        self.beside, self.n_steps = Beside(self.page.painter), n_steps
        self.tab = TrainingTab(self.page, self.beside, alone)
        PathTab(self.page)
        say(f"view      {self.page.address}")

    def after_step(self, step: int, terms: Mapping) -> bool:
        """Paint, between two steps. Whether it took time."""
        if self.page is None:
            return False
        try:
            self.tab.after_step(step, self.n_steps, terms)
            return self.beside.between_steps()
        except Exception as error:
            say(f"WARNING: the page fails ({error!r}): going on without it")
            self.close()
            return True

    def close(self) -> None:
        if self.page is not None:
            page, self.page = self.page, None
            page.close()
