"""Command-line arguments of all scripts: types of values, and a parser whose errors are InputErrors of one line."""

import argparse
import math

from infonerf.system.errors import InputError


class ScriptParser(argparse.ArgumentParser):
    """A script's arguments; what is wrong with them is an InputError of one line."""

    def error(self, message: str):
        raise InputError(" ".join(message.split()))


def flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise argparse.ArgumentTypeError(f"found {text!r}, expected True or False")


LARGEST = 10**9  # of any number, unless something else is said; squares and products of two are finite in float32


def bounded(kind: type, least: float = -LARGEST, most: float = LARGEST, above: bool = False):
    """A type for argparse: an int or float from `least` (or above it) to `most`."""
    noun = "an integer" if kind is int else "a number"
    limits = []
    if least > -LARGEST:
        limits.append(f"{'>' if above else '>='} {least:{'d' if kind is int else 'g'}}")
    limits.append(f"<= {most:{'d' if kind is int else 'g'}}")
    expected = f"{noun} {' and '.join(limits)}"

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        in_range = (value > least if above else value >= least) and value <= most and math.isfinite(value)
        if not in_range:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return parse


INTEGER, COUNT, POSITIVE = bounded(int), bounded(int, 0), bounded(int, 1)
NUMBER, AMOUNT, ABOVE_ZERO = bounded(float), bounded(float, 0), bounded(float, 0, above=True)
FRACTION = bounded(float, 0, 1, above=True)
SEED = bounded(int, 0, 2**32 - 1)
