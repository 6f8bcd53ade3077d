"""The layers of the package, and what every file in it keeps to."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports

import maquette

ROOT = Path(__file__).parents[1]
SOURCES = sorted(Path(maquette.__file__).parent.rglob("*.py"))


def test_a_package_imports_only_from_layers_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


def test_every_package_has_its_layer() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packages = {
        path.name for path in Path(maquette.__file__).parent.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert [package for package in sorted(packages) if f"maquette.{package}" not in text] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(SOURCES[0].parent).as_posix())
def test_every_file_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"


@pytest.fixture(scope="module")
def structure() -> Any:
    spec = importlib.util.spec_from_file_location("structure", ROOT / ".ci" / "structure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A package of two layers, `high` above `low`, with one file each."""
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.importlinter.contracts]]\nlayers = ["example.high", "(example.low)"]\n', encoding="utf-8"
    )
    for place in ("high", "low"):
        (tmp_path / "src" / "example" / place).mkdir(parents=True)
        (tmp_path / "src" / "example" / place / "__init__.py").touch()
    (tmp_path / "src" / "example" / "__init__.py").touch()
    write(tmp_path, "low/one.py", "def one(): ...")
    write(tmp_path, "high/two.py", "from example.low.one import one\none()")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / "src" / "example" / path).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("low/three.py", "", None),
        (
            "low/one.py",
            "def one():\n    from example.high.two import x",
            "import cycle: example.high.two, example.low.one",
        ),
        ("low/one.py", "if TYPE_CHECKING:\n    import example.high.two\ndef one(): ...", "import cycle: "),
        ("low/three.py", "TARGET = 'example.high.two.run'; print(TARGET)", "names example.high.two, a layer above"),
        ("low/three.py", "'''example.high.two is above.'''", None),
        ("low/three.py", "class one: ...\nclass Two: ...\nTwo()", None),
        ("low/three.py", "def three(): ...", "nothing uses three"),
        ("low/three.py", "def three(): ...\nthree()", None),
    ],
)
def test_the_lint_sees(structure: Any, example: Path, path: str, text: str, problem: str | None) -> None:
    write(example, path, text)
    result = structure.problems(example, "example")
    assert len(result) == (problem is not None) and (problem or "") in "".join(result)


def test_the_lint_sees_a_class_name_twice(structure: Any, example: Path) -> None:
    for place in ("low/three.py", "high/four.py"):
        write(example, place, "class Plan: ...\nPlan()")
    assert structure.problems(example, "example") == ["class Plan is in example.high.four, example.low.three"]


def test_the_structure_holds(structure: Any) -> None:
    assert structure.problems() == []


def test_the_list_of_moved_files_is_true() -> None:
    package = Path(maquette.__file__).parent
    rows = re.findall(r"(?m)^\| `(.+?)` \| (.+) \|$", (ROOT / "docs" / "moved.md").read_text(encoding="utf-8"))
    assert len(rows) > 100
    for old, new in rows:
        assert not (package / old).exists(), f"docs/moved.md: {old} is still there"
        for path in re.findall(r"`(.+?)`", new):
            assert (package / path).exists(), f"docs/moved.md: {path} does not exist"
