"""The site: each link of its pages to a file of the repository, and to a symbol there, has something to show."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


def hook(name: str) -> ModuleType:
    """A hook of the site, which mkdocs loads by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


source_pages = hook("source_pages")


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_and_symbols_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for written, target, symbol in source_pages.repository_links(text, page):
        assert (ROOT / target).exists(), written
        assert symbol is None or target.suffix != ".py" or source_pages.line_of(target, symbol) > 0, written


def test_a_symbol_is_found_by_its_name_and_a_missing_one_is_refused() -> None:
    lines = source_pages.symbols("x = 1\n\nclass A:\n    y: int = 2\n\n    def f(self):\n        pass\n")
    assert lines == {"x": 1, "A": 3, "A.y": 4, "A.f": 6}
    with pytest.raises(source_pages.PluginError):
        source_pages.line_of(Path("src/maquette/objectives/losses.py"), "no_such_loss")
