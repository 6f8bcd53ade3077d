"""What surrounds the code: locked versions, the release's check, the workflows."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", text))


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_the_pinned_versions_with_hashes(name: str) -> None:
    """`make lock` writes them together with constraints.txt."""
    locked, pinned = pins(read(name)), pins(read("constraints.txt"))
    assert locked and {package: pinned.get(package) for package in locked} == locked
    for entry in re.split(r"(?m)^(?=[\w.-]+==)", read(name))[1:]:
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", ["constraints.txt", *LOCKS])
def test_locks_name_no_index(name: str) -> None:
    assert "://" not in read(name) and "--index" not in read(name)


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    required = {
        Requirement(line).name.lower().replace("_", "-") for line in sum(extras.values(), project["dependencies"])
    }
    assert required - {project["name"]} <= pins(read("requirements-dev.lock")).keys()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.y*ml")), ids=lambda path: path.name)
def test_workflows_and_templates_parse(path: Path) -> None:
    """And a workflow runs only targets that the Makefile has, with no more rights than reading unless it says so."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        assert content["permissions"] == {"contents": "read"}
        targets = re.findall(r"run: make ([\w-]+)", path.read_text(encoding="utf-8"))
        assert [target for target in targets if not re.search(rf"(?m)^{target}:", read("Makefile"))] == []


@pytest.fixture(scope="module")
def release() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("tag", "cited", "section", "problems"),
    [
        ("v1.2.0", "1.2.0", "1.2.0", 0),
        ("1.2.0", "1.2.0", "1.2.0", 1),
        ("v1.2.1", "1.2.0", "1.2.0", 1),
        ("v1.2.0", "1.1.0", "1.2.0", 1),
        ("v1.2.0", "1.2.0", "1.1.0", 1),
    ],
)
def test_a_release_needs_tag_version_and_changelog(
    release: Any, tmp_path: Path, tag: str, cited: str, section: str, problems: int
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\n")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [{section}]\n")
    assert len(release.problems(tag, tmp_path)) == problems


def test_this_version_can_be_released(release: Any) -> None:
    assert release.problems("v" + str(re.findall(r'(?m)^version = "(.+)"', read("pyproject.toml"))[0])) == []
