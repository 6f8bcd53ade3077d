"""Every notebook runs from top to bottom, and is committed with the outputs of the code that it has."""

import base64
import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from maquette.tracking import TrackingConfig, start_parent_run, start_run
from maquette.tracking.environment import PARENT_TAG

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
RUN = "python notebooks/run.py"

OTHER_WAYS: list[tuple[str, str]] = [
    ("01_published_laws", 'REFERENCE = "nowhere"'),
]
"""Notebooks with a second way through: other values in the cell tagged `parameters`."""


@pytest.fixture(scope="module")
def run() -> Any:
    """notebooks/run.py, which writes what is committed."""
    spec = importlib.util.spec_from_file_location("notebooks_run", NOTEBOOKS / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute(path: Path, parameters: str = "") -> list[nbformat.NotebookNode]:
    """Runs a notebook in its own folder, with `parameters` after its cell of that tag, and returns all outputs."""
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(parameters))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def figures(outputs: list[nbformat.NotebookNode]) -> list[str]:
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def check(outputs: list[nbformat.NotebookNode]) -> None:
    """At least one figure was drawn, and nothing warned."""
    assert figures(outputs), "no figure was drawn: %matplotlib inline is missing"
    messages = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "Warning" not in messages, messages


def test_there_are_notebooks() -> None:
    assert ALL
    assert {name for name, _ in OTHER_WAYS} <= {path.stem for path in ALL}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_is_committed_as_run(path: Path, run: Any) -> None:
    """With the outputs of its present code, in order, and nothing that a run leaves besides."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown", "a notebook opens with what it is for"
    assert notebook.metadata.get("sources") == run.digest(notebook), f"the code has changed since: {RUN} {path.stem}"
    assert set(notebook.metadata) == {"kernelspec", "language_info", "sources"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_outputs_can_be_read_by_others(path: Path) -> None:
    """No errors, nothing on standard error, no folder of one machine; figures that are small enough for git."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert figures(outputs)
    assert max(len(base64.b64decode(figure)) for figure in figures(outputs)) < 64_000
    for output in outputs:
        assert output.output_type != "error" and output.get("name") != "stderr"
        text = output.get("text", "") + "".join(v for k, v in output.get("data", {}).items() if k.startswith("text/"))
        assert not re.search(r"(?<![.\w])/(home|root|work|tmp|usr|Users)/", text), text


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_has_a_place_in_the_tour_and_ends_with_questions_and_a_cell_to_change(path: Path) -> None:
    first, *_, questions, last = nbformat.read(path, as_version=4).cells
    assert "(../docs/course.md)" in first.source
    assert questions.source.startswith("## Questions\n\n1. ") and "A cell to change" in questions.source
    assert last.cell_type == "code" and last.outputs
    assert last.source.splitlines()[0].partition(" = ")[0].replace(", ", "").isupper(), "values to change come first"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_text_is_no_pile_of_headings(path: Path) -> None:
    """A cell pasted from a script's comments shows each of its lines as a heading."""
    for cell in nbformat.read(path, as_version=4).cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        pasted = len(lines) >= 4 and all(line.startswith("#") for line in lines)
        assert cell.cell_type != "markdown" or not pasted, f"{path.name}: {lines[0]}"


@pytest.mark.slow(reason="runs a whole notebook in a kernel")
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path) -> None:
    outputs = execute(path)
    check(outputs)
    committed = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    assert len(figures(outputs)) == len(figures(committed)), f"other figures than the committed ones: {RUN} {path.stem}"


@pytest.mark.slow(reason="runs a whole notebook in a kernel")
@pytest.mark.parametrize(("name", "parameters"), OTHER_WAYS, ids=[name for name, _ in OTHER_WAYS])
def test_its_other_way_runs_too(name: str, parameters: str) -> None:
    check(execute(NOTEBOOKS / f"{name}.ipynb", parameters))


@pytest.mark.slow(reason="runs a whole notebook in a kernel")
def test_my_sweep_reads_the_store(tmp_path: Path) -> None:
    """The committed table as runs in MLflow is read as the table itself is."""
    table = pd.read_csv(NOTEBOOKS / "data" / "sweep.csv")
    recorded = {"params": "N", "tokens": "D", "compute": "C", "core": "N_core", "seed": "seed"}
    columns = {name: table[column] for column, name in recorded.items() if column in table}
    where = {"outputs": tmp_path, "params": {}, "tags": {}}
    with start_parent_run(TrackingConfig(), name="isoflop", folder=tmp_path / "sweep", **where) as parent:
        for row in table.index:
            where["params"] = {name: column[row].item() for name, column in columns.items()}
            where["tags"] = {PARENT_TAG: parent.run_id}
            with start_run(TrackingConfig(), name=f"run-{row}", folder=tmp_path / str(row), **where) as log:
                log.log_metrics({"validation/loss": table.loss[row]}, step=1)
    outputs = execute(NOTEBOOKS / "02_my_sweep.ipynb", f"RUNS, OUTPUTS = None, {str(tmp_path)!r}")
    check(outputs)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert f"{len(table)} runs of the sweep isoflop" in printed
