"""Ctrl-C, SIGTERM and SIGHUP, taken only where nothing is half done, and by all ranks at the same place."""

import signal
from contextlib import contextmanager

from infonerf.system.errors import Stopped, stop_signals
from infonerf.system.logs import complain
from infonerf.system.ranks import Ranks


class Interrupt:
    """While installed, these signals raise Stopped: at once, or at the end of a `held` block.

    A second Ctrl-C within a held block is a KeyboardInterrupt at once, and what the block does is half done.
    Of several ranks none may leave the others alone: they stop only at the end of the blocks of all.
    """

    def __init__(self, ranks: Ranks | None = None):
        self.ranks = ranks or Ranks.alone()
        self.several = self.ranks.size > 1
        self.holding, self.signum = self.several, None

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.receive) for number in stop_signals()}
        return self

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, signum, frame):
        if not self.holding:
            raise Stopped(signum)
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signum is None:
            complain("", "finishing the step, then saving; Ctrl-C again stops without saving")  # below the bar
        self.signum = self.signum or signum

    def hold_on(self) -> None:
        """From now on nothing but a second Ctrl-C stops what is done."""
        self.holding = True

    @contextmanager
    def held(self):
        """Finish the block before stopping."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = self.several
        self.stop_if_asked()

    @contextmanager
    def cut_short(self):
        """Stop within the block, which waits for no other rank: all ranks stop at the end of theirs."""
        if not self.several:
            yield
            return
        self.stop_if_asked()
        try:
            self.holding = False
            yield
            self.holding = True
        except Stopped as stopped:
            self.holding = True
            self.signum = stopped.status - 128
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Raise Stopped where any rank was asked to stop, or left behind by what started it."""
        if self.ranks.left_behind:
            self.signum = self.signum or signal.SIGTERM
        signum = self.ranks.agree(self.signum or 0)
        if signum:
            raise Stopped(signum)
