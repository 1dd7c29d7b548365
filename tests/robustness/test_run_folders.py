"""A hundred rounds of run_folders.py, and pages of hostile names: nothing of them is a part of the page but as text."""

import base64
import hashlib
import json
import re

import pytest

import report
from robustness import run_folders
from robustness.run_folders import HOSTILE, hostile_record, own_script, what_is_foreign, write_run


def test_damaged_run_folders_make_a_page_or_one_line(tmp_path):
    counts, failed, _ = run_folders.fuzz(100, 1, tmp_path)
    assert not failed, "\n".join(failed)
    assert counts["page"] > 50 and counts["refused"] > 5


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text(good, text):
    path, output = good / "testset_000002/metrics.json", good.parent / "page.html"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | hostile_record(text)))
    assert report.main([str(good), "--output", str(output)]) == 0
    path.write_text(kept)
    page = output.read_text(encoding="utf-8")
    assert what_is_foreign(page) == []
    [digest] = re.findall(r"script-src 'sha256-([^']+)'", page)
    script = own_script().replace("$mesh_script", "")
    assert digest == base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@pytest.mark.parametrize("evil", [
    "<script>alert(1)</script>", "<p onclick=alert(1)>", "<img src=//evil.example/x>", "<iframe></iframe>",
    "<a href=javascript:alert(1)>x</a>", "<p style=background:url(//evil)>", "<meta http-equiv=refresh content=0>",
])  # fmt: skip
def test_what_is_foreign_is_found(good, evil):
    output = good.parent / "page.html"
    assert report.main([str(good), "--output", str(output)]) == 0
    page = output.read_text(encoding="utf-8")
    assert what_is_foreign(page) == [] and what_is_foreign(page.replace("<main>", f"<main>{evil}"))
