"""What kind of scene a folder holds, by its files."""

from pathlib import Path

from infonerf.scene.checks import require_folder
from infonerf.scene.colmap import model_folder
from infonerf.scene.transforms import OF_SPLITS, ONE, read_json
from infonerf.system.errors import InputError

CAMERAS_OF = {"cameras.npz": "dtu", "cameras_sphere.npz": "dtu", "cameras_large.npz": "dtu", "poses_bounds.npy": "llff",
              ONE: "capture"}  # fmt: skip


def found_kind(datadir: str | None) -> tuple[str, str]:
    """blender, dtu, llff or capture, and the file or folder that tells. Raises InputError where none does."""
    folder = require_folder(datadir, "datadir")
    train = folder / OF_SPLITS["train"]
    if train.is_file() and has_angle(train):
        return "blender", train.name
    for name, kind in CAMERAS_OF.items():
        if (folder / name).is_file():
            return kind, name
    model = model_folder(folder)
    if model or train.is_file():
        return "capture", str(model.relative_to(folder)) if model else train.name
    raise InputError(f"--datadir {folder}: found no scene (--dataset_type auto), expected {train.name}, "
                     f"{', '.join(CAMERAS_OF)} or a COLMAP model in sparse/0")


def has_angle(path: Path) -> bool:
    """Whether a JSON file has a camera_angle_x; true of one that cannot be read, too, of which a loader says more."""
    try:
        return "camera_angle_x" in read_json(path)
    except InputError:
        return True
