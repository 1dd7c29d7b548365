"""The part of the page on a training: hold it, step by step, and the curves of its losses."""

import math
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from infonerf.viewer.beside import EVERY, Beside, Curves
from infonerf.viewer.page import Page
from infonerf.viewer.server import guarded

REFRESHED = 3.0  # seconds, about, in which a picture of the newest weights is finished while they change
LINES = ("#e8590c", "#1971c2", "#2f9e44", "#9c36b5", "#c2255c", "#0c8599", "#846358", "#f08c00")


class TrainingTab:
    """Hears of each step. alone: whether no other process waits for this one, which then may be held."""

    def __init__(self, page: Page, beside: Beside, alone: bool):
        self.page, self.beside, self.gui = page, beside, page.server.gui
        self.losses, self.psnr = Curves(), Curves()
        self.plots: dict[str, object] = {}
        self.heard, self.drawn = 0.0, 0.0
        with page.tabs.add_tab("Training"):
            self.text = self.gui.add_markdown("")
            self.pause = self.gui.add_button("pause", disabled=not alone)
            self.step = self.gui.add_button("one step", disabled=True)
            self.folder = self.gui.add_folder("curves")
        self.sharpen(False)
        self.pause.on_click(guarded(self.hold))
        self.step.on_click(guarded(lambda event: beside.step_once()))

    def sharpen(self, held: bool) -> None:
        """To the full size only while the training is held."""
        self.page.painter.longest = math.inf if held else REFRESHED * self.beside.share
        self.page.painter.renew()

    def hold(self, event) -> None:
        held = not self.beside.paused
        self.beside.pause(held)
        self.sharpen(held)
        self.pause.label, self.step.disabled = ("go on" if held else "pause"), not held

    def after_step(self, step: int, of: int, terms: Mapping) -> None:
        """terms: name -> weight and value of the terms of the loss, read now and then only."""
        run, now = self.page.runs[0], perf_counter()
        run.step = step
        if now - self.heard < EVERY and not self.beside.paused:
            return
        self.heard = now
        self.losses.add(step, {name: weight * float(value) for name, (weight, value) in terms.items()})
        if "colour_fine" in terms:
            self.psnr.add(step, {"psnr": -10 * np.log10(max(float(terms["colour_fine"][1]), 1e-12))})
        held = ", held" if self.beside.paused else ""
        self.text.content = f"step {step:,} of {of:,}{held}"
        if self.page.server.get_clients() and (now - self.drawn > 2 or self.beside.paused):
            self.drawn = now
            self.draw("weighted terms of the loss", self.losses, {"distr": 3})
            self.draw("PSNR of the step's rays, dB", self.psnr, {})
            self.page.wish_again()

    def draw(self, title: str, curves: Curves, scale: dict) -> None:
        if len(curves.steps) < 2:
            return
        columns = [np.array(column) for column in curves.values.values()]
        if scale:  # of logarithms
            columns = [np.where(column > 0, column, np.nan) for column in columns]
        data = (np.array(curves.steps, float), *columns)
        series = ({"label": "step"}, *({"label": name, "stroke": LINES[k % len(LINES)], "width": 2}
                                       for k, name in enumerate(curves.values)))  # fmt: skip
        plot = self.plots.get(title)
        if plot is None or len(plot.data) != len(data):
            if plot is not None:
                plot.remove()
            with self.folder:
                self.plots[title] = self.gui.add_uplot(
                    data, series, title=title, scales={"x": {"time": False}, "y": scale}, aspect=1.4
                )
        else:
            plot.data = data
