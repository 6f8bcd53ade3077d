import ast
from pathlib import Path

import pytest

from maquette.corpus.sources.package_texts import part

SOURCE = '''\
#!/usr/bin/env python
"""The module."""

import os  # kept


class Empty(Exception):
    """Nothing but this."""


class Thing:
    """A thing.

        Indented.
    """

    x = 1  # "not a docstring"

    def method(self):
        """Does."""
        def inner(): "Inner."
        return """Not this."""

    async def other(self): "On one line."


if os:
    def é(ü="ß"): """Ü"""; return 1
'''

CODE = '''\
#!/usr/bin/env python
import os  # kept


class Empty(Exception):
    ...


class Thing:
    x = 1  # "not a docstring"

    def method(self):
        def inner(): ...
        return """Not this."""

    async def other(self): ...


if os:
    def é(ü="ß"): ...; return 1
'''


def test_code_and_docstrings_are_parted() -> None:
    result = part(SOURCE.encode(), "package.module")
    assert result.code == CODE
    assert result.docs == [
        ("package.module", "The module."),
        ("Empty", "Nothing but this."),
        ("Thing", "A thing.\n\nIndented."),
        ("Thing.method", "Does."),
        ("Thing.method.inner", "Inner."),
        ("Thing.other", "On one line."),
        ("é", "Ü"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        b'def f():\n    ("""a\n    b""")\n',
        b'def f():\n    ("a"\n     "b")\n    return 1\n',
        b'def f():\n    "a" \\\n    "b"\n',
        b'"""only a docstring"""',
        b'# -*- coding: latin-1 -*-\n"""\xe4"""\nx = "\xe4"\n',
        b'\xef\xbb\xbf"""doc"""\r\nx = 1\r\n',
        b'def f():\n    """doc"""\n    # a comment\n\n    pass\n',
        b'match x:\n    case 1:\n        class A:\n            "doc"\n            y = 1\n',
        b'try:\n    pass\nexcept* E:\n    def f():\n        """doc"""\n        raise\n',
        b"",
    ],
)
def test_what_remains_is_the_same_program(source: bytes) -> None:
    assert without_docstrings(ast.parse(part(source).code)) == without_docstrings(ast.parse(source))


MODULES = sorted(Path(ast.__file__).parent.glob("[a-e]*.py"))


@pytest.mark.parametrize("path", MODULES[::6], ids=lambda path: path.stem)
def test_the_standard_library_remains_the_same_program(path: Path) -> None:
    source = path.read_bytes()
    assert without_docstrings(ast.parse(part(source).code)) == without_docstrings(ast.parse(source))


def without_docstrings(tree: ast.Module) -> str:
    """The program with every docstring, and what stands for one, taken out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str | type(...))
            ):
                del node.body[0]
    return ast.dump(tree)


@pytest.mark.parametrize("source", [b"def (", b"# coding: no-such\n", b'x = "\xff"\n'])
def test_what_python_can_not_read_is_refused(source: bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        part(source)
