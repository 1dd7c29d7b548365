"""Write docs/options.md from the declarations in infonerf/config.py: `python -m tools.options_page`."""

from dataclasses import fields
from pathlib import Path

from infonerf.config import NO_EFFECT, REFUSED, option_of, sections

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """# Options

Every option of `run_nerf.py`, with its default. This page is made from `infonerf/config.py` by
`python -m tools.options_page`; `python run_nerf.py --help` shows the same.

- (+): not in the released code. All other names and defaults are the released ones.
- A flag is given as `--entropy`, `--entropy True` or `--entropy False`; in a config file as `entropy = True`.
- A list: `--train_scene 26 86 2 55`; in a config file `train_scene = [26, 86, 2, 55]`. Both take either form.
- `None` is an option's default, whatever a config that comes before it says.
- In a config file a comment begins at `#` or `;` after a space or at the start of a line: `data/a#b` is a path.
- A config file may begin with `base = FILE`, a path relative to its own folder. It then is the lines that differ from
  that file. The command line wins over the config, the config over its base.
"""


def shown(default) -> str:
    """A default, where there is one."""
    if default is None:
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    for section in sections().values():
        title = section.__doc__[0].upper() + section.__doc__[1:]
        rows = ["| option | default | |", "|---|---|---|"]
        for part in fields(section):
            option = option_of(part)
            name = f"`{part.name}`" + (" (+)" if option.ours else "")
            help = option.help.replace("|", r"\|")
            if option.choices:
                help += f". One of {', '.join(f'`{choice}`' for choice in option.choices)}"
            rows.append(f"| {name} | {shown(part.default)} | {help} |")
        parts.append("\n".join([f"## {title}", "", *rows, ""]))
    inert = ", ".join(f"`{name}`" for name in NO_EFFECT)
    refused = ", ".join(f"`{name}`" for name in REFUSED)
    parts.append("## Accepted, so that released config files parse\n\n"
                 f"{inert}: no effect, nor had they in the released code; they are named once at the start.\n"
                 f"{refused}: refused.\n")  # fmt: skip
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
