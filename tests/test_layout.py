"""Where tests are, and what their marks say."""

import ast
from pathlib import Path

import maquette

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))
APART = {"docs", "examples", "experiments", "faults", "notebooks", "support"}
"""Folders of what is not below src/maquette."""


def test_folders_mirror_the_package() -> None:
    package = Path(maquette.__file__).parent
    folders = {path.parent.relative_to(TESTS) for path in FILES}
    strange = [folder.as_posix() for folder in folders if folder.as_posix() not in APART | {"."}]
    assert [folder for folder in sorted(strange) if not (package / folder).is_dir()] == []


def test_a_slow_test_says_why() -> None:
    silent = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        message = {
            id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and (node.args or node.keywords)
        }
        silent += [
            f"{path.relative_to(TESTS)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "slow" and id(node) not in message
        ]
    assert silent == [], 'write pytest.mark.slow(reason="...")'
