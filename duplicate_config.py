"""Make the configs of other scenes from one: `python duplicate_config.py [SOURCE] [--scenes NAME ...]`.

A config names its scene as a component of the paths in datadir, expname and maskdir. A clone names another scene
there; every other byte is the source's.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from infonerf.command_line import LONGEST_LINE, NO_VALUE, config_chain, settings_in
from infonerf.system.arguments import ScriptParser
from infonerf.system.errors import InputError, exit_status
from infonerf.system.files import atomic_file
from infonerf.system.logs import say

LEGO = Path(__file__).parent / "configs/infonerf/synthetic/lego.txt"
SYNTHETIC = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
LLFF = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
NAMING = ("expname", "datadir", "maskdir")  # the options that name the scene
BASE = "base"  # not an option: names another config by a path relative to this one's folder
SEPARATOR = re.compile(r"([/\\])")
# A stripped line of a config, as configargparse's DefaultConfigFileParser reads it.
SETTING = re.compile(
    r"""(?P<name>[^:=;#\s]+)\s*(?:[:=\s]\s*(?P<quote>['"]?)(?P<value>.+?)?(?P=quote))?\s*(?:\s[;#].*)?"""
)


class Setting(NamedTuple):
    """What a line sets, and where in the line its value begins."""

    name: str
    value: str
    start: int


class Clone(NamedTuple):
    """A file to be. wanted: False where it is there already, byte for byte."""

    path: Path
    content: bytes
    wanted: bool


# The syntax of config files.


def setting_of(line: str) -> Setting | None:
    """The setting in a line; None in a comment or an empty line. Raises ValueError for anything else."""
    text = line.lstrip("\ufeff").strip()
    if not text or text[0] in "#;[" or text.startswith("---"):
        return None
    match = SETTING.fullmatch(NO_VALUE.sub(r"\1", text))
    if match is None:
        raise ValueError(f"found {text!r}, expected `option = value`")
    return Setting(match["name"].removeprefix("--"), match["value"] or "", line.index(text) + match.start("value"))


def naming_settings(lines: list[str], source: Path) -> dict[int, Setting]:
    """The settings that name the scene, and the base, by the index of their line."""
    settings = {}
    for index, line in enumerate(lines):
        if len(line) > LONGEST_LINE:  # what is matched against it takes its time
            raise InputError(f"{source}: line {index + 1}: {len(line)} characters, expected at most {LONGEST_LINE}")
        try:
            setting = setting_of(line)
        except ValueError as error:
            raise InputError(f"{source}: line {index + 1}: {error}") from error
        none = setting and setting.name == "maskdir" and setting.value in ("", "None")
        if setting and setting.name in (*NAMING, BASE) and not none:
            settings[index] = setting
    for name in ("expname", "datadir"):
        if not any(setting.name == name and setting.value for setting in settings.values()):
            raise InputError(f"{source}: found no {name} in it, expected one that names the scene (a base's is not "
                             "cloned)")
    return settings


def check_bases(settings: dict[int, Setting], source: Path) -> None:
    """Raise InputError where a base cannot be read, or names masks and the source does not: clones would share them."""
    own = {setting.name for setting in settings.values()}
    for base in config_chain(str(source))[:-1] if BASE in own else ():
        if settings_in(base).get("maskdir") and "maskdir" not in own:
            raise InputError(f"{source}: found no maskdir in it, expected one that names the scene, as its base {base} "
                             "has one, which the clones would share")


# Scenes in paths.


def scene_in(settings: dict[int, Setting], source: Path) -> str:
    """The scene's name: the last component of datadir."""
    datadir = [setting.value for setting in settings.values() if setting.name == "datadir"][-1]
    components = [part for part in re.split(r"[/\\]", datadir) if part not in ("", ".")]
    if not components or components[-1] == "..":
        raise InputError(f"{source}: datadir: found {datadir!r}, expected a path that ends in the scene's name")
    return components[-1]


def renamed(setting: Setting, old: str, new: str) -> str | None:
    """The setting's path with its components `old` replaced; None where there are none.

    An expname without one may hold OLD_suffix: a run folder is named for what was done, too.
    """
    parts = SEPARATOR.split(setting.value)
    if old in parts:
        return "".join(new if part == old else part for part in parts)
    with_suffix = [index for index, part in enumerate(parts) if part.startswith(f"{old}_")]
    if setting.name != "expname" or not with_suffix:
        return None
    parts[with_suffix[-1]] = new + parts[with_suffix[-1]].removeprefix(old)
    return "".join(parts)


def file_name(source: Path, old: str, new: str) -> str:
    """OLD.txt -> NEW.txt, OLD_suffix.txt -> NEW_suffix.txt; a file of another name -> NEW.txt."""
    suffix = source.stem.removeprefix(old) if source.stem.startswith(f"{old}_") else ""
    return f"{new}{suffix}{source.suffix}"


def scene_names(names: list[str] | None, old: str) -> list[str]:
    """The scenes asked for, checked; by default the other scenes of NeRF synthetic, or of LLFF."""
    if names is None:
        known = [group for group in (SYNTHETIC, LLFF) if old in group]
        if not known:
            raise InputError(f"--scenes: not given; only {', '.join(SYNTHETIC + LLFF)} have default ones, found scene "
                             f"{old}")
        return [name for name in known[0] if name != old]
    if not names:  # argparse drops a --
        raise InputError("--scenes: found '--', expected the name of a scene")
    is_scan = re.fullmatch(r"scan[0-9]+", old)
    scenes = [f"scan{name}" if is_scan and re.fullmatch("[0-9]+", name) else name for name in names]
    for scene in scenes:
        bad = not scene or scene[0] in ".-" or ".." in scene or SEPARATOR.search(scene)
        bad = bad or len(scene.encode(errors="replace")) > 100
        if bad or not scene.isprintable():
            expected = "the name of a scene: no path, no leading dot or dash, no control characters"
            raise InputError(f"--scenes: found {scene!r}, expected {expected} (SOURCE stands before --scenes)")
        if scene == old:
            raise InputError(f"--scenes: found {scene!r}, expected others than the source's scene")
        if scenes.count(scene) > 1:
            raise InputError(f"--scenes: found {scene!r} twice, expected each scene once")
    return scenes


# Clones.


def clone(text: str, source: Path, settings: dict[int, Setting], old: str, new: str, folder: Path) -> bytes:
    """The source with another scene's name, for a file in `folder`."""
    pieces = re.split(r"(\r\n|\r|\n)", text)  # lines, and their ends between them
    for index, setting in settings.items():
        where = f"{source}: line {index + 1}: {setting.name}"
        value = moved(setting.value, source.parent, folder) if setting.name == BASE else renamed(setting, old, new)
        if value is None:
            expected = f"a path with the component {old!r}, as in datadir: the clones would share it"
            raise InputError(f"{where}: found {setting.value!r}, expected {expected}")
        line, end = pieces[2 * index], setting.start + len(setting.value)
        pieces[2 * index] = line[: setting.start] + value + line[end:]
        if setting_of(pieces[2 * index]) != setting._replace(value=value):
            raise InputError(f"--scenes: found {new!r}, expected a name that {where} can hold")
    return "".join(pieces).encode()


def moved(path: str, here: Path, there: Path) -> str:
    """A path relative to one folder, relative to another."""
    if os.path.isabs(path) or os.path.realpath(here) == os.path.realpath(there):
        return path
    return Path(os.path.relpath(os.path.realpath(here / path), os.path.realpath(there))).as_posix()


def is_wanted(target: Path, content: bytes, source: Path, force: bool) -> bool:
    """Whether the file is to be written; an InputError where something that would be lost is in its place."""
    if not os.path.lexists(target):
        return True
    if not target.is_file():
        raise InputError(f"{target}: found something else than a file, expected a config or nothing")
    if target.samefile(source):
        raise InputError(f"{target}: found the source itself, expected another file")
    try:
        same = target.read_bytes() == content
    except OSError as error:
        raise InputError(f"{target}: cannot be read ({error.strerror}), expected a config or nothing") from error
    if same:
        return False
    if not force:
        raise InputError(f"{target}: found a file that differs, expected none (--force replaces it)")
    return True


def check_folder(folder: Path) -> None:
    """Raise InputError unless files can be written to the folder, which may still have to be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{folder}: cannot be written to, found that {existing} is no writable folder, expected one")


def plan(source: Path, names: list[str] | None, output: Path | None, force: bool) -> list[Clone]:
    """Every clone, after all checks."""
    try:
        text = source.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{source}: cannot be read ({reason}), expected a config file") from error
    settings = naming_settings(re.split(r"\r\n|\r|\n", text), source)
    check_bases(settings, source)
    old = scene_in(settings, source)
    folder = source.parent if output is None else output
    clones = []
    for new in scene_names(names, old):
        path, content = folder / file_name(source, old, new), clone(text, source, settings, old, new, folder)
        clones.append(Clone(path, content, is_wanted(path, content, source, force)))
    if any(clone.wanted for clone in clones):
        check_folder(folder)
    return clones


# The script.


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    source: Path
    scenes: list[str] | None
    output: Path | None
    force: bool
    dry_run: bool


def parse_arguments(argv: list[str]) -> Arguments:
    parser = ScriptParser(prog="duplicate_config.py", description="Make the configs of other scenes from one.",
                    allow_abbrev=False)  # fmt: skip
    parser.add_argument("source", nargs="?", type=Path, default=LEGO, metavar="SOURCE",
                        help="config to clone; by default configs/infonerf/synthetic/lego.txt")
    parser.add_argument("--scenes", nargs="+", metavar="NAME",
                        help="scenes of the clones, by default all others of its data set; DTU: 30 or scan30")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to, by default beside the source")
    parser.add_argument("--force", action="store_true", help="replace files that are there and differ")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, say what would be written")
    return Arguments(**vars(parser.parse_args(argv)))


def run(argv: list[str]) -> int:
    args = parse_arguments(argv)
    for path, content, wanted in plan(args.source, args.scenes, args.output, args.force):
        if wanted and not args.dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                file.write(content)
        say(f"{('would write' if args.dry_run else 'wrote') if wanted else 'unchanged'} {path}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done; 1 a disk that is full; 2 a file or option that cannot be used."""
    return exit_status("duplicate_config.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
