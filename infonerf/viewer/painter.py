"""Who is painted for, and in what order: several eyes, each with its newest wish, and longer jobs between.

One thread paints, the one that calls `work`; wishes and jobs come from any.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from infonerf.viewer.frames import FIRST, Pace, Picture, Source, Wish, paint

Sources = Callable[[], Sequence[Source]]
Job = Generator[None, None, None]


@dataclass
class Eye:
    """wish: the newest. sizes: those of all its pictures; None, before the first. level: how many of them were made.
    current: the picture that is being made, perhaps the first one of an older wish."""

    wish: Wish
    sizes: list[tuple[int, int]] | None = None
    level: int = 0
    current: "Current | None" = None


@dataclass(frozen=True)
class Current:
    """A picture that is being made. level: 0 for a first one."""

    wish: Wish
    level: int
    painting: Generator[None, None, Picture]


@dataclass
class Painter:
    """sources: what is rendered, asked for at the beginning of each picture. entropy: alpha r s -> r.
    show: hears of each picture: whose it is, the wish, the picture, and whether it is the last of this wish.
    fault: hears of an error in a picture or a job, which is then given up. first: seconds of a first picture's rays.
    longest: seconds that a sharper picture may take; those that would take longer are left out.
    """

    sources: Sources
    entropy: Callable
    show: Callable[[Hashable, Wish, Picture, bool], None]
    fault: Callable[[Exception], None]
    first: float = FIRST
    longest: float = math.inf
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = perf_counter

    def __post_init__(self):
        self.eyes: dict[Hashable, Eye] = {}
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()

    # From any thread.

    def wish(self, who: Hashable, wish: Wish) -> None:
        """The newest wish of an eye. A first picture that was begun is finished, or else an eye that moves all the time
        would see nothing; a sharper one is not."""
        with self.changed:
            old = self.eyes.get(who)
            if old and old.wish.same_as(wish):
                return
            kept = old.current if old and old.current and old.current.level == 0 else None
            self.eyes[who] = Eye(wish, current=kept)
            self.changed.notify_all()

    def renew(self) -> None:
        """All pictures again, as something else than a wish has changed."""
        with self.changed:
            self.eyes = {who: Eye(eye.wish) for who, eye in self.eyes.items()}
            self.changed.notify_all()

    def forget(self, who: Hashable) -> None:
        with self.changed:
            self.eyes.pop(who, None)

    def job(self, job: Job) -> None:
        """Something to do in the painting thread, until its next `yield`; before pictures are made sharper."""
        with self.changed:
            self.jobs.append(job)
            self.changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until there may be something to do."""
        with self.changed:
            if not self.busy:
                self.changed.wait(seconds)

    @property
    def busy(self) -> bool:
        with self.changed:
            return bool(self.jobs) or bool(self.waiting())

    def waiting(self) -> list[Hashable]:
        """Eyes whose wish is not fulfilled, the least sharp first."""
        unfinished = [who for who, eye in self.eyes.items() if eye.sizes is None or eye.level < len(eye.sizes)]
        return sorted(unfinished, key=lambda who: self.eyes[who].level)

    # In the painting thread.

    def work(self, seconds: float) -> float:
        """Paint for about so long, or until there is nothing to do. Returns the seconds that it took."""
        start = self.clock()
        while self.clock() - start < seconds and self.work_a_bit():
            pass
        return self.clock() - start

    def work_a_bit(self) -> bool:
        """A chunk of rays, or a bit of a job. Whether there was anything to do."""
        with self.changed:
            who = next(iter(self.waiting()), None)
            eye = self.eyes.get(who)
            job = self.jobs.popleft() if self.jobs and (eye is None or eye.level > 0) else None
        if job is not None:
            self.bit_of_job(job)
        elif eye is not None:
            self.bit_of_picture(who, eye)
        return eye is not None or job is not None

    def bit_of_job(self, job: Job) -> None:
        try:
            next(job)
        except StopIteration:
            return
        except Exception as error:
            self.fault(error)
            return
        with self.changed:
            self.jobs.append(job)

    def bit_of_picture(self, who: Hashable, eye: Eye) -> None:
        try:
            if eye.sizes is None:
                first, *sharper = self.pace.sizes(eye.wish.size, self.first)
                most = self.longest * self.pace.rate
                eye.sizes = [first, *(size for size in sharper if size[0] * size[1] <= most)]
            if eye.current is None:
                size = eye.sizes[eye.level]
                painting = paint(self.sources(), eye.wish, size, self.pace, self.entropy, self.clock)
                eye.current = Current(eye.wish, eye.level, painting)
            next(eye.current.painting)
        except StopIteration as finished:
            current, eye.current = eye.current, None
            eye.level += current.wish is eye.wish
            with self.changed:  # in the meantime there may be a new wish, which took the picture over
                newer = self.eyes.get(who)
                if newer and newer.current is current:
                    newer.current = None
            if newer is eye or current.level == 0:
                self.show(who, current.wish, finished.value, newer is eye and eye.level == len(eye.sizes))
        except Exception as error:
            with self.changed:
                self.eyes.pop(who, None)  # until it wishes something else
            self.fault(error)
