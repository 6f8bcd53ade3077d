"""The floors of the house, and what every file in it keeps to."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import maquette

ROOT = Path(__file__).parents[1]
SOURCES = sorted(Path(maquette.__file__).parent.rglob("*.py"))


def test_a_room_imports_only_from_the_rooms_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


def test_every_room_has_its_floor() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    rooms = {
        path.name for path in Path(maquette.__file__).parent.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert [room for room in sorted(rooms) if f"maquette.{room}" not in text] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(SOURCES[0].parent).as_posix())
def test_every_file_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"
