"""infonerf/system/logs.py: the progress bar, and consoles. What a training logs is in tests/test_run_nerf.py."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infonerf.batch import prefixed, print_line
from infonerf.config import Config, changed_since
from infonerf.evaluation.record import metrics_table
from infonerf.system.errors import InputError, exit_status
from infonerf.system.logs import complain, printable, progress_bar, say, text_table
from support.runs import ROOT


@pytest.mark.parametrize(("watched", "seconds"), [(True, 0.2), (False, 30)])
def test_a_bar_that_nobody_watches_hardly_fills_a_log_file(monkeypatch, capsys, watched, seconds):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    with progress_bar(total=3, desc="rendering") as bar:
        bar.update(3)
    assert bar.mininterval == seconds
    assert "rendering: 100%" in capsys.readouterr().err


def shown(monkeypatch, run, encoding="ascii"):
    """The exit status of a script, and what consoles of an encoding get from it."""
    kinds = {"stdout": "strict", "stderr": "backslashreplace"}
    pair = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors) for errors in kinds.values()]
    for name, stream in zip(kinds, pair, strict=True):
        monkeypatch.setattr(sys, name, stream)
    status = exit_status("x.py", run)
    for stream in pair:
        stream.flush()
    return status, *(stream.buffer.getvalue().decode(encoding) for stream in pair)


def test_a_console_gets_what_it_cannot_show_as_escapes(monkeypatch):
    """A byte of a file's name that is no text, umlauts, and a name of two lines, from every kind of output."""
    def run():
        say("Ansicht_\xe4 \u2192 f\udce4", "and more")
        print_line("== k\xf6ln.txt: done")
        say(*metrics_table({"r\xe4": (3, "1", {}), "two\nlines": (4, "1", {})}).split("\n"))
        with progress_bar(total=1, desc="r\xe4ume") as bar:
            bar.update()
        complain("gr\xfc\xdfe")
        raise InputError("f\udce4/\xe4.png: no image")

    status, out, err = shown(monkeypatch, run)
    assert status == 2
    assert out.splitlines() == ["Ansicht_\\xe4 \\u2192 f\\udce4", "and more", "== k\\xf6ln.txt: done",
                                "run         step  views", "r\\xe4          3     1", "two\\nlines  4     1"]
    assert "r\\xe4ume: 100%" in err
    assert err.splitlines()[-2:] == ["gr\\xfc\\xdfe", "x.py: error: f\\udce4/\\xe4.png: no image"]


def test_a_message_says_what_was_found_and_expected_however_long_it_is():
    message = str(InputError(f"a.json: found {'x' * 10**6}, expected a number"))
    assert message.startswith("a.json: found xxx") and message.endswith("xxx, expected a number")
    assert 1000 < len(message) < 1600 and " ... " in message


def test_a_console_that_can_show_it_does(monkeypatch):
    status, out, _ = shown(monkeypatch, lambda: say("Ansicht_\xe4 \u2192 f\udce4") or 0, "utf-8")
    assert (status, out) == (0, "Ansicht_\xe4 \u2192 f\\udce4\n")


def test_control_characters_of_a_file_do_nothing_to_a_console(monkeypatch):
    def run():
        say("a\x1b[2Jb\rc\nWARNING: none")
        raise OSError(28, "No space left", "a\x1b[2Jb\nc")

    assert shown(monkeypatch, run) == (
        1, "a\\x1b[2Jb\\rc\\nWARNING: none\n", "x.py: error: [Errno 28] No space left: 'a\\x1b[2Jb\\nc'\n"
    )  # fmt: skip
    assert printable("a\nb\x7f", keep="\n") == "a\nb\\x7f"
    assert text_table([["a\nb", "c"]]) == "a\\nb  c"


def test_a_label_that_is_no_text_does_not_end_the_relay_of_a_run():
    assert prefixed([b"line"], "sc\udce4n\x1b[2J") == b"sc\\udce4n\\x1b[2J | line\n"


def test_a_script_on_a_console_of_ascii(tmp_path):
    source = tmp_path / "sz\xe4ne.txt"
    source.write_text("expname = a/sz\xe4ne\ndatadir = sz\xe4ne\n", encoding="utf-8")
    done = subprocess.run([sys.executable, ROOT / "duplicate_config.py", source, "--scenes", "h\xf6hle"], text=True,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"wrote {tmp_path}/h\\xf6hle.txt\n")
    assert (tmp_path / "h\xf6hle.txt").is_file()


def test_what_python_prints_by_itself_is_escaped_too():
    """Tracebacks, warnings, and what libraries log: in a process of its own, whose hooks they are."""
    code = """if True:
        import logging, warnings
        from infonerf.system.errors import exit_status
        def run():
            logging.getLogger("library").warning("logged \\x1b[31m")
            warnings.warn("warned \\x1b]0;title\\x07")
            raise RuntimeError("raised \\x9b2J")
        exit_status("x.py", run)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    first, second, *trace = done.stderr.splitlines()
    assert (first, second) == ("logged \\x1b[31m", "UserWarning: warned \\x1b]0;title\\x07")
    assert (done.returncode, trace[0]) == (1, "Traceback (most recent call last):")
    assert trace[-1] == "RuntimeError: raised \\x9b2J"


def test_changes_since_a_checkpoint_are_lines_of_their_own():
    config = Config().replace(datadir="here")
    assert changed_since({"datadir": "a\x1b[31m\nERROR"}, config) == [
        f"changed since the checkpoint: datadir was {Path.cwd()}/a\\x1b[31m\\nERROR, now {Path.cwd()}/here"
    ]
