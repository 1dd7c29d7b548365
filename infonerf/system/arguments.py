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


def bounded(kind: type, least: float = -math.inf, most: float = math.inf, above: bool = False):
    """A type for argparse: an int or float from `least` (or above it) to `most`; an int at most 1e9 by default."""
    most = 10**9 if kind is int and most == math.inf else most
    noun = "an integer" if kind is int else "a number"
    limits = []
    if least > -math.inf:
        limits.append(f"{'>' if above else '>='} {least:g}")
    if most < math.inf:
        limits.append(f"<= {most:g}")
    expected = " ".join([noun, " and ".join(limits)]).strip()

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
