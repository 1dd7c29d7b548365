"""infonerf/system/logs.py: the progress bar. What a training logs is in tests/test_run_nerf.py."""

import sys

import pytest

from infonerf.system.logs import progress_bar


@pytest.mark.parametrize(("watched", "seconds"), [(True, 0.2), (False, 30)])
def test_a_bar_that_nobody_watches_hardly_fills_a_log_file(monkeypatch, capsys, watched, seconds):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    with progress_bar(total=3, desc="rendering") as bar:
        bar.update(3)
    assert bar.mininterval == seconds
    assert "rendering: 100%" in capsys.readouterr().err
