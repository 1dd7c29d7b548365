"""Painting beside a training, between its steps: for a bounded share of its time, and while it is held."""

from collections.abc import Callable, Mapping
from time import perf_counter

from infonerf.viewer.painter import Painter

SHARE = 0.25  # of the time, at most, is painted
MOST_CREDIT = 0.5  # seconds, saved up while nobody looked
MOST_POINTS = 400  # of a curve
EVERY = 0.5  # seconds from one point of the curves to the next


class Beside:
    """The training calls `between_steps` after each step; pausing comes from any thread."""

    def __init__(self, painter: Painter, share: float = SHARE, clock: Callable[[], float] = perf_counter):
        self.painter, self.share, self.clock = painter, share, clock
        self.credit, self.left = 0.0, clock()
        self.paused, self.single = False, False

    def between_steps(self) -> bool:
        """Paint for as long as the time since the last call allows, and as long as the training is held. Whether it
        took any time."""
        trained = self.clock() - self.left
        self.credit = min(self.credit + trained * self.share / (1 - self.share), MOST_CREDIT)
        spent = self.painter.work(self.credit) if self.credit > 0 and self.painter.busy else 0.0
        self.credit -= spent
        held = self.paused
        while self.paused and not self.single:
            self.painter.work(0.1)
            self.painter.wait(0.1)
        self.single = False
        self.left = self.clock()
        return spent > 0 or held

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def step_once(self) -> None:
        """Let a training that is held make one step."""
        self.single = True


class Curves:
    """Values by step, thinned out so that there are never more than MOST_POINTS of each."""

    def __init__(self):
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}
        self.every, self.heard = 1, 0

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.heard += 1
        if self.heard % self.every:
            return
        self.steps.append(step)
        for name in self.values.keys() | values.keys():
            column = self.values.setdefault(name, [float("nan")] * (len(self.steps) - 1))
            column.append(float(values.get(name, float("nan"))))
        if len(self.steps) > MOST_POINTS:
            self.every *= 2
            self.steps = self.steps[1::2]
            self.values = {name: column[1::2] for name, column in self.values.items()}
