"""Ctrl-C and SIGTERM, taken only where nothing is half done."""

import signal
import sys
from contextlib import contextmanager


class Stopped(BaseException):
    """The user (SIGINT) or the system (SIGTERM) asked the run to stop. `status`: the exit status."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class Interrupt:
    """While installed, both signals raise Stopped: at once, or at the end of a `held` block.

    A second Ctrl-C within a held block is a KeyboardInterrupt at once, and what the block does is half done.
    """

    def __init__(self):
        self.holding, self.signum = False, None

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
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
            print("\nfinishing the step, then saving; Ctrl-C again stops without saving", file=sys.stderr, flush=True)
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
            self.holding = False
        if self.signum is not None:
            raise Stopped(self.signum)
