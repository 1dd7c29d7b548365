"""Command line and config files -> a checked Config, and back to the text of a config file.

A flag may be given as `--entropy`, `--entropy True` or `--entropy False`, and in a config file as `entropy = True`; a
list as `1 2` or `1, 2`, in brackets, parentheses or quotes, in both. The value None is the option's default, whatever a
config says. In a config file a comment begins at # or ; where a line begins or after a space: `data/a#b` is a path.

A config file that says `base = FILE` is the lines that differ from that file, whose path is relative to its own. The
command line wins over the config, the config over its base.
"""

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import configargparse

from infonerf.config import DEFAULTS, NEEDS, NO_EFFECT, REFUSED, Config, declared, option_of, sections
from infonerf.system.arguments import flag
from infonerf.system.errors import InputError

LEFT_OUT = ("ft_path", "no_reload")  # of args.txt: how the run was started is no part of it
LONGEST_LINE = 10_000  # of a config file: the parser takes its time
NO_VALUE = re.compile(r"^(\s*[^:=;#\s]+\s*[:=]?)\s+[#;].*")  # but a comment, which the parser would take for one
BASE_LINE = re.compile(r"\s*(--)?base\s*([=:\s]|$)")


# Config files.


def read_config(path: str) -> str:
    """The text of a config file, read whole so that whatever is wrong with it is one line. Bytes that are no UTF-8 may
    name a file."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--config {path}: cannot be read ({reason}), expected a config file") from error
    no_utf8 = re.search("[\udc80-\udcff]", text)
    if no_utf8 and ("\0" in text or text.startswith(("\udcff\udcfe", "\udcfe\udcff"))):  # of UTF-16
        raise InputError(f"--config {path}: cannot be read (not a text file), expected a config file")
    longest = max(map(len, text.split("\n")))
    if longest > LONGEST_LINE:
        raise InputError(f"--config {path}: found a line of {longest} characters, expected at most {LONGEST_LINE}")
    return os.fsdecode(text.encode(errors="surrogateescape"))  # the same, but where the system's names are of ASCII


def open_config(path: str, *_) -> io.StringIO:
    """The lines of a config file that set an option; `base` is none (see config_chain)."""
    return named_stream(path, setting_lines(read_config(path)))


def setting_lines(text: str) -> str:
    lines = io.StringIO(text, newline=None)
    return "".join(NO_VALUE.sub(r"\1", line) for line in lines if not BASE_LINE.match(line))


def named_stream(path: str, text: str) -> io.StringIO:
    stream = io.StringIO(text)
    stream.name = path
    return stream


def settings_in(path: str) -> dict[str, str | list]:
    """What a config file sets by itself, without its base, and not to None."""
    try:
        given = configargparse.DefaultConfigFileParser().parse(open_config(path))
        return {name: value for name, value in given.items() if value != "None"}
    except configargparse.ConfigFileParserException as error:
        raise InputError(f"--config {path}: {error}".replace("\n", " ")) from error


def base_of(path: str) -> str | None:
    """The config file that another one is based on, None where it stands alone."""
    text = io.StringIO(read_config(path), newline=None)
    lines = [line for line in text if BASE_LINE.match(line)]
    if not lines:
        return None
    given = configargparse.DefaultConfigFileParser().parse(named_stream(path, lines[-1])).popitem()[1]
    if len(lines) > 1 or not isinstance(given, str) or not given or given == "true":
        raise InputError(f"--config {path}: base: found {' '.join(map(str.strip, lines))!r}, expected one line "
                         "`base = FILE`")
    return os.path.join(os.path.dirname(path), given)


def config_chain(path: str) -> list[str]:
    """A config file and the files that it is based on, itself last."""
    chain, seen = [path], {os.path.realpath(path)}
    while base := base_of(chain[0]):
        if not os.path.isfile(base):
            raise InputError(f"--config {chain[0]}: base: found no file {base}, expected a config file (its path is "
                             "relative to this one's)")
        if os.path.realpath(base) in seen:
            raise InputError(f"--config {chain[0]}: base: found {base}, which is based on this file itself, expected "
                             "no circle")
        seen.add(os.path.realpath(base))
        chain.insert(0, base)
    return chain


# The parser.


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one that says something."""

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class OptionParser(configargparse.ArgumentParser):
    """A parser whose errors are InputErrors of one line, with the config file that a wrong value is from; a config file
    brings those that it is based on."""

    def _open_config_files(self, command_line_args):
        found = super()._open_config_files(command_line_args)
        return [(open_config(path), path) for _, label in found for path in config_chain(label)]

    def error(self, message: str):
        message = re.sub("^Unable to open config file: .*? Error: (?=--config)", "", message)
        option = re.match(r"argument --(\w+): ", message)
        source = self.file_of(option[1]) if option else None
        raise InputError(" ".join((f"{source}: {message}" if source else message).split()))

    def file_of(self, name: str) -> str | None:
        """The config file whose line sets `name`, None where the command line does, or nothing."""
        for source, given in self.get_source_to_settings_dict().items():
            if source.startswith("config_file|") and {name, f"--{name}"} & given.keys():
                return source.removeprefix("config_file|")
        return None


def create_parser() -> OptionParser:
    parser = OptionParser(
        usage="python run_nerf.py --config FILE [--OPTION VALUE ...]",
        description="Train InfoNeRF, or the NeRF it builds on, from a few photographs; resume; render. "
        "Options marked (+) are not in the released code.",
        epilog="A first run: python run_nerf.py --config configs/infonerf/sample.txt. What a run leaves, and what "
        "to do when something goes wrong: README.md.",
        allow_abbrev=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_open_func=open_config,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", is_config_file=True, metavar="FILE",
                        help="config file of `option = value` lines; `base = FILE` names one that it differs from")
    for section in sections().values():
        group = parser.add_argument_group(section.__doc__)
        for part in fields(section):
            add_option(group, part.name, part.default, option_of(part))
    add_inert_options(parser.add_argument_group("accepted, so that released config files parse"))
    return parser


class ListAction(argparse.Action):
    """A list in any usual form. parse: the type of its items."""

    def __init__(self, *args, parse, **facts):
        super().__init__(*args, nargs="*", **facts)
        self.parse = parse

    def __call__(self, parser, namespace, words, option_string=None):
        try:
            items = self.default if words == ["None"] else [self.parse(item) for item in list_items(words)]
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, f"{error}; a list is of the form 26 86 2 55") from error
        setattr(namespace, self.dest, items)


def list_items(words: list[str]) -> list[str]:
    """`26 86`, `26, 86`, `[26, 86]`, `(26 86)` or any of them in quotes, in one word or several -> 26 and 86."""
    text = " ".join(words).strip(" \t'\"")
    in_brackets = text[:1] + text[-1:] in ("[]", "()")
    text = text[1:-1].strip() if in_brackets else text
    if not text and (in_brackets or not words):
        return []
    return [item.strip("'\"") for item in re.split(r"\s*,\s*|\s+", text.removesuffix(",").rstrip())]


def or_default(parse: Callable[[str], Any] | None, default: Any) -> Callable[[str], Any]:
    """A type for argparse: as `parse`, None for text; and the word None is the default."""
    parse = parse or str
    return lambda text: default if text == "None" else parse(text)


def add_option(group, name: str, default, option) -> None:
    facts = {"default": default, "help": f"{option.help} (+)" if option.ours else option.help}
    if isinstance(default, bool):
        group.add_argument(f"--{name}", type=or_default(flag, default), nargs="?", const=True, metavar="BOOL", **facts)
        return
    facts["metavar"] = option.metavar or (None if option.choices else "VALUE")
    if option.many:
        group.add_argument(f"--{name}", action=ListAction, parse=option.parse, **facts)
    else:
        group.add_argument(f"--{name}", type=or_default(option.parse, default), choices=option.choices, **facts)


def add_inert_options(group) -> None:
    for name, default in NO_EFFECT.items():
        group.add_argument(f"--{name}", type=or_default(None, default), nargs="?", const=True, default=default,
                           metavar="VALUE", help="no effect")  # fmt: skip
    for name in REFUSED:
        group.add_argument(f"--{name}", type=or_default(None, None), nargs="?", const="True", metavar="VALUE",
                           help="refused")  # fmt: skip


def parse_options(argv: list[str] | None = None) -> tuple[Config, list[str]]:
    """The checked options, and what the user should be told about them.

    Raises InputError, before anything is written, for options that are unknown, of a wrong type, or
    impossible together.
    """
    parser = create_parser()
    args, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if unknown:
        raise InputError(unknown_option(unknown[0], parser))
    given = vars(args)
    for action in parser._actions:  # of the word --, as argparse has it
        if isinstance(given.get(action.dest), list) and action.nargs != "*":
            raise InputError(f"--{action.dest}: found '--', expected a value")
    for name in REFUSED:
        if given[name] not in (None, "False", "false"):
            raise InputError(f"--{name}: not supported (it was never usable in the released code), expected it unset")
    config = Config().replace(**{name: given[name] for _, name, _ in declared()})
    check_complete(config)
    return config, notes_on(config, [name for name, default in NO_EFFECT.items() if given[name] != default])


def unknown_option(word: str, parser: OptionParser) -> str:
    name = word.split("=")[0].removeprefix("--")
    close = difflib.get_close_matches(name, [action.dest for action in parser._actions], n=1)
    source = parser.file_of(name)
    where = f"in {source}" if source else "on the command line"
    return f"unknown option {word!r} {where}" + (f"; did you mean --{close[0]}?" if close else "; see --help")


def check_complete(config: Config) -> None:
    """Raise InputError for what a run lacks, and for what its args.txt could not hold."""
    for name, value in (("expname", config.run.expname), ("datadir", config.data.datadir)):
        if not value:
            example = "--config configs/infonerf/synthetic/lego.txt"
            raise InputError(f"--{name}: not given; expected it in a config file (such as {example}) or as an option")
    for name, value in config.values().items():
        if isinstance(value, str) and name not in LEFT_OUT:
            check_writable_in_config(name, value)


def check_writable_in_config(name: str, value: str) -> None:
    """A run is described by its args.txt: raise InputError for a value that a config file cannot hold."""
    if text_line(name, value) is None:
        raise InputError(f"--{name}: found {value!r}, expected what a config file can hold (one line, no [])")


def text_line(name: str, value: str) -> str | None:
    """The line of a config file that sets an option to a text, in quotes where it needs them; None where none does."""
    for quote in ("", "'", '"'):
        line = f"{name} = {quote}{value}{quote}"
        try:
            value.encode(errors="surrogateescape")  # bytes that are no text can be held
            held = configargparse.DefaultConfigFileParser().parse(io.StringIO(setting_lines(line)))
        except (configargparse.ConfigFileParserException, UnicodeEncodeError):
            continue
        if held == {name: value} and "\0" not in value:
            return line
    return None


# What a user should know before a run starts.


def notes_on(config: Config, without_effect: list[str]) -> list[str]:
    """Warnings, and options that do nothing here. without_effect: those of NO_EFFECT that were given."""
    notes, losses = [], config.losses
    if without_effect:
        notes.append(f"options with no effect (nor had they in the released code): {', '.join(without_effect)}")
    for term, weight, usual in (
        ("smoothing", "smoothing_lambda", "1e-5"),
        ("entropy", "entropy_ray_zvals_lambda", "1e-3"),
    ):
        if getattr(losses, term) and getattr(losses, weight) == 1:
            notes.append(
                f"WARNING: {term} is on with {weight} 1, the default, which drowns the colour loss: "
                f"training is likely to diverge; the shipped configs use about {usual}"
            )
    idle = idle_options(config)
    if looking := idle.pop("render_only", None):
        notes.append(f"options with no effect without render_only: {', '.join(looking)}")
    if idle:
        words = (f"{name} without {condition}" for condition, names in idle.items() for name in names)
        notes.append("options with no effect here: " + "; ".join(words))
    if config.batch.precrop_iters and not config.batch.no_batching:
        notes.append("precrop_iters has no effect without no_batching (as released)")
    field = config.field
    shallow = field.netdepth <= 5 or (field.netdepth_fine <= 5 and config.sampling.N_importance)
    if field.field == "nerf" and not field.mi_mlp and shallow:
        notes.append("a network of depth 5 or less has no skip connection")
    return notes


def idle_options(config: Config) -> dict[str, list[str]]:
    """Conditions of NEEDS that do not hold -> the options that were changed and need them."""
    idle: dict[str, list[str]] = {}
    values = config.values()
    for condition, holds in NEEDS.items():
        names = [name for _, name, option in declared() if option.needs == condition and values[name] != DEFAULTS[name]]
        if names and not holds(config):
            idle[condition] = names
    return idle


# And back.


def as_text(config: Config) -> str:
    """All options as the text of a config file that gives the same run; to be written with errors=surrogateescape."""
    values = config.values()
    given = {name: values[name] for name in sorted(values) if name not in LEFT_OUT and values[name] is not None}
    texts = {name: text_line(name, value) for name, value in given.items() if isinstance(value, str)}
    return "".join(f"{texts.get(name) or f'{name} = {value}'}\n" for name, value in given.items())


def run_config(folder: Path) -> Config:
    """The options that a run was trained with, from its folder, wherever that lies now.

    Raises InputError where the folder is not that of a run."""
    path = folder / "args.txt"
    if not os.path.isfile(path):
        raise InputError(f"{folder}: found no args.txt, expected the folder of a run of run_nerf.py")
    config, _ = parse_options(["--config", str(path), "--ft_path", "", "--no_reload", "False"])
    if config.run.folder.resolve() == folder.resolve():
        return config
    there = Path(os.path.abspath(folder))  # of ".", too, there is a parent and a name
    return config.replace(basedir=str(there.parent), expname=there.name)
