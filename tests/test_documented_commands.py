"""Every command line that README, docs and examples show composes: its stage, groups, keys and values exist.

The tutorials are run from top to bottom, as a reader would type them, with less text and fewer steps.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.jobs import product

pytestmark = pytest.mark.usefixtures("no_pictures")

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md",
    ROOT / "notebooks" / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md")),
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
    """Its words as a shell gives them; `<sft run>` and `...` stand for a name."""
    named = re.sub(r"<([^>]+)>", lambda name: re.sub(r"\W", "_", name[1]), command)
    named = named.replace("taste:prefer_kind", "stranger.reward:prefer_short")  # from a file that the page writes
    return shlex.split(named.replace("...", "a_name"), comments=True)


COMMANDS = {
    " ".join(arguments_of(command)): (str(page.relative_to(ROOT)), command)
    for page in PAGES
    for command in shown_commands(page)
    if command.startswith("maquette ") and command.split()[1].partition("|")[0] not in ("STAGE", "-sc")
}
"""Each command line once, with a page that shows it."""


@pytest.fixture(autouse=True)
def beside_the_stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(STRANGER)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry != str(STRANGER)]


def test_there_are_command_lines_to_look_at() -> None:
    assert len(COMMANDS) > 100


@pytest.mark.slow(reason="composes every command line of the docs, a third of a second each")
@pytest.mark.parametrize(("page", "command"), sorted(COMMANDS.values()))
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


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


LESS = {
    "'sweep.budgets=[3e9,1e10,3e10]'": "'sweep.budgets=[1e8,2e8,4e8]' sweep.sizes_per_budget=3 num_validations=1",
    "compute=3e11": "size=10k compute=1e9",
    "objective=ppo": "objective=ppo trainer.max_steps=4",
    "tokens=400k": "tokens=40k",
    "source.limit=500": "source.limit=60",
    "/*.py": "/*a*.py",
    "make real-model": "true",
    "maquette alignment +experiment=real_model": "true",  # tests/cli/test_real_model_study.py
    "path=outputs/real/": f"path={ROOT}/outputs/real/",
    "max_tokens=24": "max_tokens=4",
    "objective.batch_size=8 optimizer.lr=1e-3 trainer.max_steps=20": "objective.batch_size=2 trainer.max_steps=1",
}
"""What a page says, and what the test types in its place: smaller budgets, less text."""


def type_in(block: str) -> None:
    """Runs a block of shell lines in the current folder: those of `maquette` in this process, which has loaded it
    already, others in a shell. `<sft run>` is the newest such run; a chat serves until it is stopped: left out.
    """
    for shown, typed in LESS.items():
        block = block.replace(shown, typed)
    if "maquette " not in block:
        shell = 'set -e\npython() { "$PYTHON" "$@"; }\n' + block
        subprocess.run(["bash", "-c", shell], env=os.environ | {"PYTHON": sys.executable}, check=True)
        return
    for line in block.replace("\\\n", " ").splitlines():
        for kind in re.findall(r"<(\w+) run>", line):
            newest = max(Path("outputs/runs").glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
            line = line.replace(f"<{kind} run>", newest.name)
        command, *arguments = shlex.split(line, comments=True) or [""]
        if command == "maquette" and arguments[0] != "chat":
            with pytest.raises(SystemExit) as done:
                cli.main(arguments)
            assert not done.value.code, line


def test_the_course_shows_what_its_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of docs/course.md that stand below a command: every line of them, whatever the width of a terminal."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(maquette [^\n]*)\n```\n\n```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    for command, shown in blocks:
        with pytest.raises(SystemExit) as done:
            cli.main(shlex.split(command.replace("=notebooks/", f"={ROOT}/notebooks/"))[1:])
        assert not done.value.code, command
        printed = " ".join(re.sub(r"[─-╿]", " ", capsys.readouterr().out).split())
        for line in shown.splitlines():
            assert " ".join(line.split()) in printed, (command, line)


@pytest.mark.slow(reason="some ten commands of a page, training included", minutes=1)
@pytest.mark.parametrize("name", ["own_text", "own_data", "own_preferences"])
def test_a_tutorial_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(name, tmp_path, monkeypatch)


@pytest.mark.slow(reason="trains a model of 135M parameters for a step")
def test_the_tutorial_of_a_real_model(real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model that `real_model` has imported in place of the one that the page imports."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "artifacts").symlink_to(real_model / "artifacts")
    follow("real_model", tmp_path, monkeypatch)


def follow(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r'^```(bash|python)(?: title="([^"]+)")?\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for _, file, text in blocks:
        if "PeftModel" in text:
            run = next(Path("outputs/runs").glob("sft-*")).name
            exec(text.replace("<sft run>", run), {})
            continue
        if "<reward folder>" in text:  # tests/model/test_scalar_folders.py: nobody's folder is at hand here
            continue
        if file:
            Path(file).write_text(text, encoding="utf-8")
            continue
        if "outputs/arena/preferences.jsonl" in text:  # what votes in the arena would have left
            votes = Path("outputs/arena/preferences.jsonl")
            votes.parent.mkdir(parents=True)
            votes.write_text(Path("pairs.jsonl").read_text())
        type_in(text)
    sys.modules.pop("taste", None)
