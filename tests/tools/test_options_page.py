"""docs/options.md is what infonerf/config.py declares."""

from infonerf.config import NO_EFFECT, REFUSED, declared
from tools.options_page import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.options_page"


def test_every_option_is_on_it_once():
    text = page()
    for _, name, option in declared():
        assert text.count(f"| `{name}`{' (+)' if option.ours else ''} |") == 1
    assert all(f"`{name}`" in text for name in (*NO_EFFECT, *REFUSED))
