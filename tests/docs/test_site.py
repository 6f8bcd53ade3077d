"""The site: its links to files and symbols of the repository, and the reference that is made from the code."""

import doctest
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from maquette.artifacts.settings import walk
from maquette.cli.command_line.registry import STAGES
from maquette.model.architecture import TransformerConfig
from maquette.recipe.pretraining import resolve

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


def hook(name: str) -> ModuleType:
    """A hook of the site, which mkdocs loads by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


source_pages, reference, formulas = hook("source_pages"), hook("reference"), hook("formulas")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The pages of the reference, as they are made when the site is built."""
    made: dict[str, str] = reference.pages()
    return made


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_and_symbols_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for written, target, symbol in source_pages.repository_links(text, page):
        if source_pages._is_code(target, symbol):
            assert source_pages.locate(target, symbol)[1] > 0, written
        else:
            assert (ROOT / target).exists(), written


def test_formulas_become_mathml_and_code_does_not() -> None:
    def shown(markdown: str, source: str) -> str:
        page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
        return str(formulas.on_page_content(formulas.on_page_markdown(markdown, page, None, None), page, None, None))

    html = shown("costs $5 and $6\n\n```math\n\\frac{A}{N^\\alpha}\n```\n", "page.md")
    assert "costs $5 and $6" in html and "<mfrac>" in html and 'display="block"' in html
    html = shown("of $N^*$, `$HOME$`\n\n```bash\necho $A $B\n```\n\n$$L = E$$\n", "source/notebooks/x.ipynb.md")
    assert html.count("<math") == 2 and "`$HOME$`" in html and "echo $A $B" in html


def test_notebooks_are_shown_with_their_figures() -> None:
    png = {"data": {"image/png": "aGk=\n", "text/plain": "<Figure>"}}
    text = {"output_type": "stream", "text": ["one\n", "two\n"]}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["f()"], "outputs": [text, png]},
    ]
    page = "\n".join(source_pages._cells({"cells": cells}))
    assert page.startswith("# Title\ntext\n") and "```python\nf()\n```" in page and "```text\none\ntwo\n```" in page
    assert 'src="data:image/png;base64,aGk="' in page and 'alt="' in page


def test_a_symbol_is_found_wherever_it_is_defined_and_a_missing_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = source_pages.symbols("x = 1\n\nclass A:\n    y: int = 2\n\n    def f(self):\n        pass\n")
    assert lines == {"x": 1, "A": 3, "A.y": 4, "A.f": 6}
    monkeypatch.setattr(source_pages, "ROOT", tmp_path)
    for name, text in {"src/one/a.py": "\nclass A: ...\n", "src/one/b.py": "f = 1", "src/two/c.py": "f = 2"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert source_pages.locate(Path("src/one"), "A") == (Path("src/one/a.py"), 2)
    assert source_pages.locate(Path("src/two"), "f") == (Path("src/two/c.py"), 1)
    for gone in ("src/two/c.py", "src/two", "src/three/d.py"):  # it has moved to another package
        assert source_pages.locate(Path(gone), "A") == (Path("src/one/a.py"), 2)
    for place, symbol, message in (("src/one", "B", "no B"), ("src", "f", "name the file")):
        with pytest.raises(source_pages.PluginError, match=message):
            source_pages.locate(Path(place), symbol)


def test_the_reference_has_every_stage_group_option_and_key(pages: dict[str, str]) -> None:
    for stage in STAGES.values():
        page = pages[f"reference/stages/{stage.name}.md"]
        for setting in walk(stage.config):
            section = setting.key.partition(".")[0]
            shown = page if section == setting.key else pages[f"reference/keys/{section}.md"]
            assert f"| `{setting.key}` |" in shown, (stage.name, setting.key)
    folders = {path.name: path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"}
    for name, folder in folders.items():
        for option in folder.glob("*.yaml"):
            assert f"### `{name}={option.stem}`" in pages[f"reference/keys/{name}.md"], (name, option.stem)
    for names in reference.FUNCTIONS.values():
        assert [name for name in names if f"### `{name}`" not in pages["reference/python.md"]] == []


def test_a_signature_is_shown_with_its_defaults(pages: dict[str, str]) -> None:
    shown = pages["reference/python.md"]
    assert "def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor" in shown
    assert "    label_smoothing: float = 0.0," in shown


def test_the_recipe_page_shows_what_the_recipe_gives() -> None:
    page = (ROOT / "docs" / "explanations" / "recipe.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+[kmb]) \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 5
    for size, numbers in rows:
        recipe = resolve(size=size, vocab_size=1024, sequence_length=256)
        shape = recipe.architecture
        assert isinstance(shape, TransformerConfig)
        values = [shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads, recipe.tokens]
        values.append(recipe.batch_size_tokens)
        assert numbers.split(" | ") == [*(f"{value:,}" for value in values), f"{recipe.learning_rate:.2g}"], size


@pytest.mark.parametrize("page", [page for page in PAGES if "```pycon" in (ROOT / "docs" / page).read_text("utf-8")])
def test_the_numbers_of_a_page_are_those_of_the_code(page: str) -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_drawings_are_labelled_and_follow_the_colour_scheme() -> None:
    drawings = sorted((ROOT / "docs").rglob("drawings/*.svg"))
    assert drawings
    for path in drawings:
        page = path.parents[1] / f"{path.stem.replace('promises', 'not_promised')}.md"
        assert re.search(rf"!\[[^\]]{{40,}}\]\(drawings/{path.stem}\.svg\)", page.read_text(encoding="utf-8")), path
        svg = path.read_text(encoding="utf-8")
        assert 'class="drawing"' in svg and "prefers-color-scheme: dark" in svg and "width=" not in svg[:120], path
