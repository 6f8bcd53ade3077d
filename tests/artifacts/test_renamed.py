"""The table of renamed keys: the page is made of it, and new names are names that there are."""

from pathlib import Path

from maquette.artifacts.renamed import RENAMED, page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_the_table() -> None:
    assert (DOCS / "renamed.md").read_text(encoding="utf-8") == page(), (
        "run python -m maquette.artifacts.renamed > docs/renamed.md"
    )


def test_no_new_name_is_an_old_one() -> None:
    assert sorted(set(RENAMED.values()) & set(RENAMED)) == []
