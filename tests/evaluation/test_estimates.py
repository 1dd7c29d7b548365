"""evaluate.py --rays and --tiles."""

import pytest

from evaluate import main


def test_rays_are_measured_and_nothing_is_written(logdir, capsys):
    before = sorted(logdir.parent.rglob("*"))
    assert main([str(logdir), "--rays", "40"]) == 0
    header, row = capsys.readouterr().out.splitlines()[-2:]
    assert header.split() == ["run", "step", "views", "psnr", "psnr_pooled", "psnr_masked"]
    assert row.split()[1:3] == ["2", "4"]
    assert main([str(logdir), "--rays", "40", "--views", "0", "5", "3"]) == 0
    other = capsys.readouterr().out.splitlines()[-1]
    assert other.split()[1:3] == ["2", "3"]
    assert other.split()[3] != row.split()[3]
    for extra in ([], ["--colour_correct"]):
        assert main([str(logdir), "--rays", "800", *extra]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("run ", str(logdir)))]
    assert lines[2] == [*header.split(), "psnr_corrected", "psnr_corrected_masked"]
    assert lines[3][:6] == lines[1]
    assert sorted(logdir.parent.rglob("*")) == before


def test_all_tiles_are_what_whole_pictures_show_and_nothing_is_written(logdir, capsys):
    assert main([str(logdir)]) == 0
    header, row = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    before = sorted(logdir.parent.rglob("*"))
    assert main([str(logdir), "--tiles", "1000"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [header, row]
    assert header[:6] == ["run", "step", "views", "psnr", "psnr_pooled", "ssim"]
    assert main([str(logdir), "--tiles", "1000", "--views", "0", "3"]) == 0
    other = capsys.readouterr().out.splitlines()[-1].split()
    assert other[2] == "2"
    assert other[3] != row[3]
    assert sorted(logdir.parent.rglob("*")) == before


@pytest.mark.parametrize(("words", "expected"), [
    (["--rays", "0"], "argument --rays: found '0', expected an integer >= 1"),
    (["--tiles", "0"], "argument --tiles: found '0', expected an integer >= 1"),
    (["--tiles", "9", "--rays", "9"], "argument --rays: not allowed with argument --tiles"),
    (["--tiles", "9", "--render_factor", "2"], "--render_factor: tiles are of full size, expected no --tiles"),
    (["--tiles", "9", "--views", "6"], "--views: found view 6, expected 0..5"),
    (["--tiles", "9", "--colour_correct"], "--colour_correct: needs --rays"),
    (["--views", "1"], "--views: needs --rays or --tiles"),
    (["--colour_correct"], "--colour_correct: needs --rays"),
    (["--rays", "9", "--render_factor", "2"], "--render_factor: rays are of full size, expected no --rays beside it"),
    (["--rays", "9", "--views", "6"], "--views: found view 6, expected 0..5"),
    (["--rays", "9", "--views", "1", "1"], "--views: view 1 is named twice"),
], ids=str)  # fmt: skip
def test_wrong_rays_are_one_line(logdir, capsys, words, expected):
    assert main([str(logdir), *words]) == 2
    assert expected in capsys.readouterr().err
