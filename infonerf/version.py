"""The version that is written into checkpoints, and what exactly it is."""

import hashlib
from pathlib import Path

import torch

VERSION = "0.1.0"


def code() -> str:
    """Hexadecimal digits that change with any file of this program, or torch's version."""
    package = Path(__file__).parent
    digest = hashlib.sha256(f"{VERSION} {torch.__version__}".encode())
    for path in sorted(package.rglob("*.py")) + sorted(package.parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
