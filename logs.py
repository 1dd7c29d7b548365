"""Where numbers go: TensorBoard always, Weights & Biases only if asked for; and lines beside a progress bar."""

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm


def say(text: str) -> None:
    """Print a line without breaking a progress bar."""
    tqdm.write(text)


class Log:
    """Scalars and images by step to TensorBoard in `folder` and, where a wandb run is given, scalars to it.

    step: the step that the run starts after; later points of an earlier attempt are hidden.
    """

    def __init__(self, folder: Path, step: int, wandb_run=None):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only training needs it

        self.writer = SummaryWriter(folder, purge_step=step + 1)
        self.wandb_run = wandb_run

    def tensorboard(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars to TensorBoard only."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def images(self, step: int, images: Mapping) -> None:
        """Images h w 3, uint8, to TensorBoard."""
        for name, image in images.items():
            self.writer.add_image(f"validation/{name}", image, step, dataformats="HWC")
        self.writer.flush()

    def wandb(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars to wandb only, where there is a run. Training matters more: a failure ends the logging, not it."""
        try:
            if self.wandb_run:
                self.wandb_run.log(dict(scalars), step=step)
        except Exception as error:
            say(f"wandb fails ({error!r}): going on without it")
            self.wandb_run = None

    def close(self) -> None:
        self.writer.close()
        if self.wandb_run:
            self.wandb_run.finish()


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
