"""The version that is written into checkpoints."""

VERSION = "0.1.0"
