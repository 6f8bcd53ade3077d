"""Every command line that README, docs and examples show composes: its stage, groups, keys and values exist."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.jobs import product

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md",
    ROOT / "notebooks" / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]  # fmt: skip
STRANGER = ROOT / "examples" / "stranger"


def shown_commands(page: Path) -> Iterator[str]:
    """The lines of its shell blocks and its `code spans`, each command of a line by itself."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [span.replace("\n", " ").replace("\\|", "|") for span in re.findall(r"`([^`]+)`", prose)]
    for line in [*"".join(blocks).replace("\\\n", " ").splitlines(), *spans]:
        yield from (command.strip() for command in line.split("&&"))


def arguments_of(command: str) -> list[str]:
    """Its words as a shell gives them; `<run>` and `...` stand for a name."""
    return shlex.split(re.sub(r"<[^>]+>|\.\.\.", "a_name", command), comments=True)


COMMANDS = sorted({
    (str(page.relative_to(ROOT)), command)
    for page in PAGES
    for command in shown_commands(page)
    if command.startswith("maquette ") and command.split()[1].partition("|")[0] not in ("STAGE", "-sc")
})  # fmt: skip


@pytest.fixture(autouse=True)
def beside_the_stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(STRANGER)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry != str(STRANGER)]


def test_there_are_command_lines_to_look_at() -> None:
    assert len(COMMANDS) > 100


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_line_composes(page: str, command: str) -> None:
    _, name, *arguments = arguments_of(command)
    stage = STAGES[name]
    line = cli.parse(stage, arguments)
    # Hydra's own settings are tested in test_hydra_options.py, an interval's values come of a search.
    overrides = [text for text in line.overrides if not text.startswith("hydra") and "interval(" not in text]
    if line.multirun:
        overrides = product(stage, overrides, line.config_folder)[0]
    # Of a prediction's run the rest is in a file that the reader has, and the test has not.
    compose(stage, [text for text in overrides if not text.startswith("prediction=")], line.config_folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_benchmarks_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    for script, flags in re.findall(r"python (benchmarks/\w+\.py)((?: [^`\n#]*)?)", text):
        source = (ROOT / script).read_text(encoding="utf-8")
        assert [flag for flag in re.findall(r"--[a-z-]+", flags) if f'"{flag}"' not in source] == [], script
