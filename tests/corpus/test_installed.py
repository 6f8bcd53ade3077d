import importlib.metadata
import site
from pathlib import Path, PurePosixPath

import pytest

from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.installed import (
    PACKAGES,
    Installed,
    distribution_modules,
    group_of,
    is_written_by_people,
    module_name,
    standard_modules,
)
from maquette.corpus.sources.package_texts import readable
from maquette.corpus.workers import workers

FEW = ("tqdm", "PyYAML", "packaging", "no-such-package")


def read(count: int = 1) -> tuple[Installed, list[Document]]:
    source = Installed(SourceConfig(), FEW, standard_library=False)
    with workers(count) as pool:
        return source, list(source.documents(pool))


def distribution(folder: Path, name: str, version: str = "1.0") -> None:
    """A package as an installer leaves it: a module, its metadata and the list of its files."""
    about = f"{name}-{version}.dist-info"
    (folder / about).mkdir(parents=True)
    (folder / f"{name}.py").write_text(f'"""What {name} does."""\n\nvalue = 1\n')
    (folder / about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nAbout {name}.\n"
    )
    (folder / about / "RECORD").write_text(f"{name}.py,,\n{about}/METADATA,,\n{about}/RECORD,,\n")


def test_other_packages_of_the_environment_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, documents = read()
    for name in ("aaa_extra", "mlflow_skinny_like", "zzz_extra"):
        distribution(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("zzz_extra") == "1.0"
    again, result = read()
    assert result == documents and again.facts() == source.facts()
    assert [module for module in standard_modules() if "extra" in module.name] == []


def test_what_changed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = read()
    assert source.changes(source.facts()) == ""
    known = source.facts()
    distribution(tmp_path, "tqdm", "999.1")
    monkeypatch.syspath_prepend(tmp_path)
    assert read()[0].changes(known) == f"tqdm {known['packages']['tqdm']}, now 999.1"


def test_every_package_has_code_docs_readme_and_licence() -> None:
    source, documents = read()
    result = {(document.meta["package"], document.domain) for document in documents}
    assert result == {
        (package, domain)
        for package in ("tqdm", "pyyaml", "packaging")
        for domain in ("code", "docs", "legal", "readme")
    }
    facts = source.facts()
    assert facts["missing"] == ["no-such-package"]
    assert facts["packages"]["packaging"] == importlib.metadata.version("packaging").partition("+")[0]
    assert facts["modules"] > 50


def test_docstrings_are_in_the_docs_and_not_in_the_code() -> None:
    _, documents = read()
    by_id = {document.id: document for document in documents}
    code, docs = by_id["packaging.version/code"], by_id["packaging.version/docs"]
    assert "def parse(version: str)" in code.text
    assert "Parse the given version string" not in code.text
    assert docs.text.startswith("packaging.version\n")
    assert "\n\nparse\nParse the given version string." in docs.text
    assert code.meta == docs.meta == {"group": "packaging", "package": "packaging"}


def test_nothing_machine_specific_is_read() -> None:
    _, documents = read()
    assert len({(document.domain, document.id) for document in documents}) == len(documents)
    for document in documents:
        for folder in site.getsitepackages():
            assert folder not in document.text + document.id + str(document.meta)


def test_the_order_does_not_depend_on_workers() -> None:
    assert read(1)[1] == read(2)[1]


def test_packages_come_with_the_default_installation_and_once() -> None:
    assert len({name.lower() for name in PACKAGES}) == len(PACKAGES)
    assert list(PACKAGES) == sorted(PACKAGES, key=str.lower)
    wanted, known = ["maquette-lm"], set()
    while wanted:
        name = wanted.pop().lower().replace("_", "-").replace(".", "-")
        if name in known:
            continue
        known.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            bare, _, marker = requirement.partition(";")
            if "extra" not in marker:
                wanted.append(bare.split("[")[0].split("(")[0].split("<")[0].split(">")[0].split("=")[0].strip(" !~"))
    assert {name.lower().replace("_", "-") for name in PACKAGES} <= known


@pytest.mark.parametrize(
    ("path", "name", "group"),
    [
        ("torch/nn/modules/linear.py", "torch.nn.modules.linear", "torch.nn"),
        ("torch/hub.py", "torch.hub", "torch"),
        ("torch/__init__.py", "torch", "torch"),
        ("six.py", "six", "six"),
    ],
)
def test_names_and_groups(path: str, name: str, group: str) -> None:
    assert module_name(PurePosixPath(path)) == name
    assert group_of(PurePosixPath(path)) == group


def test_tests_and_copies_are_left_out() -> None:
    names = [module.name for module in distribution_modules(importlib.metadata.distribution("numpy"))]
    assert "numpy.linalg._linalg" in names
    assert not [name for name in names if "tests" in name or ".test_" in name]
    standard = [module.name for module in standard_modules()]
    assert "argparse" in standard and "json.decoder" in standard
    assert not [name for name in standard if name.startswith(("test", "idlelib", "lib2to3", "_sysconfigdata"))]


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("x = 1\n" * 50, True),
        ("# Generated by a tool. DO NOT EDIT.\nx = 1\n", False),
        ('"""Text generated by hand."""\nx = 1\n', True),
        ("table = [\n" + "    (1, 2, 'three'),\n" * 100 + "]\n", False),
        ("def f():\n    return [\n" + "        1,\n" * 10 + "    ]\n", True),
        ("x=" + "1+" * 5000 + "1", False),
        ("", False),
    ],
)
def test_generated_files_and_tables_are_told_from_what_people_write(source: str, written: bool) -> None:
    assert is_written_by_people(source.encode()) is written


def test_what_a_build_writes_about_itself_is_left_out() -> None:
    assert not is_written_by_people(b"git_version = '0123abc'\n", "torch.version")
    assert is_written_by_people(b"x = 1\n" * 400, "packaging.version")


def test_readmes_are_read_as_a_reader_sees_them() -> None:
    markdown = (
        '<p align="center"><img src="logo.svg"/></p>\n\n# Name\n\n<!-- a\nnote -->\n'
        "[![badge](https://x/a.svg)](https://x) ![Picture](b.png)\n\nUse <b>it</b> where a < b; see [docs](https://d).\n"
        "\n[docs]: https://d\n"
    )
    assert readable(markdown) == "# Name\n\nUse it where a < b; see [docs](https://d)."
    rst = ".. image:: a.png\n   :width: 10\n\n   :align: left\n\nName\n====\n\n|a| |b|\n\n.. |a| image:: x\n\nText.\n"
    assert readable(rst) == "Name\n====\n\nText."
