"""What a process shows: lines beside a progress bar; and where numbers go: TensorBoard always, Weights & Biases only
if asked for."""

import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

silent = False


def silence() -> None:
    """From now on this process shows nothing but errors of its own: another one speaks for it."""
    global silent
    silent, sys.stdout = True, open(os.devnull, "w", errors="replace")  # noqa: SIM115


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, but those to keep, as escapes: from a file, they could do anything."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def complain(*lines: str) -> None:
    """Lines of what ends this process, and others like it."""
    if not silent:
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)


def say(*lines: str) -> None:
    """Print lines without breaking a progress bar."""
    tqdm.write("\n".join(map(printable, lines)))


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as lines of aligned columns."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def progress_bar(**options) -> tqdm:
    """A bar of tqdm; where nobody watches it, in a log file say, a line in half a minute."""
    if silent:
        return tqdm(file=sys.stdout, mininterval=math.inf, **options)
    return tqdm(dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 30, **options)


class Log:
    """Scalars and images by step to TensorBoard in `folder` and, where a wandb run is given, scalars to it.

    step: the step that the run starts after; later points of an earlier attempt are hidden.
    Training matters more than either: one that fails is reported once and not used again, and training goes on.
    A silent process writes to neither.
    """

    def __init__(self, folder: Path, step: int, wandb_run=None):
        self.folder, self.writer, self.wandb_run = folder, None, wandb_run
        if silent:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only training needs it

        hush_writer_threads()
        self.writer = SummaryWriter(named_in_text(folder), purge_step=step + 1)

    def tensorboard(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars to TensorBoard only."""
        self.write(lambda writer: [writer.add_scalar(name, value, step) for name, value in scalars.items()])

    def images(self, step: int, images: Mapping) -> None:
        """Images h w 3, uint8, to TensorBoard."""
        self.write(lambda writer: [writer.add_image(f"validation/{name}", image, step, dataformats="HWC")
                                   for name, image in images.items()])

    def write(self, add: Callable) -> None:
        """Let `add` write with TensorBoard's writer, and flush. Its folder is made again where it was removed."""
        try:
            if self.writer:
                self.folder.mkdir(parents=True, exist_ok=True)
                add(self.writer)
                self.writer.flush()
        except OSError as error:
            say(f"WARNING: TensorBoard's log cannot be written: {error}; going on without it")
            self.writer = None

    def wandb(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars to wandb only, where there is a run. Training matters more: a failure ends the logging, not it."""
        try:
            if self.wandb_run:
                self.wandb_run.log(dict(scalars), step=step)
        except Exception as error:
            say(f"wandb fails ({error!r}): going on without it")
            self.wandb_run = None

    def close(self) -> None:
        if self.writer:
            with suppress(OSError):
                self.writer.close()
        if self.wandb_run:
            self.wandb_run.finish()


def named_in_text(folder: Path) -> Path:
    """A folder by a name that TensorBoard takes, where its own one is bytes that are no text (on Linux)."""
    try:
        str(folder).encode()
        return folder
    except UnicodeEncodeError:
        return Path(f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}")


def hush_writer_threads() -> None:
    """TensorBoard's threads hand their errors to who writes next: no traceback of theirs beside it."""
    others = threading.excepthook

    def hook(fault):
        if not (isinstance(fault.exc_value, OSError) and type(fault.thread).__module__.startswith("tensorboard.")):
            others(fault)

    threading.excepthook = hook


def start_wandb(name: str, group: str | None, options: Mapping, folder: Path):
    """A wandb run, or None, said once, where wandb cannot be used."""
    try:
        import wandb

        return wandb.init(project="infonerf", name=name, group=group, config=dict(options), dir=str(folder))
    except ImportError:
        say("wandb is asked for but not installed (pip install wandb): going on without it")
    except Exception as error:  # no account, no network: training matters more
        say(f"wandb cannot start ({error!r}): going on without it")
    return None
