"""The folders of a run that hold pictures: KIND_STEP, or KIND_STEP_factorN for pictures of 1/N of the size."""

import re
from typing import NamedTuple


class PictureFolder(NamedTuple):
    """kind: testset, path ... step: of the checkpoint. factor: 1 for full size."""

    kind: str
    step: int
    factor: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.step:06d}" + (f"_factor{self.factor}" if self.factor > 1 else "")


def parse_picture_folder(name: str) -> PictureFolder | None:
    """None for a name of something else."""
    match = re.fullmatch(r"([a-z_]+)_([0-9]+)(?:_factor([0-9]+))?", name)
    if match is None or match[1] == "superseded":
        return None
    return PictureFolder(match[1], int(match[2]), int(match[3] or 1))
