"""Two processes a run, wherever it is started from: a sweep by each launcher, and a notebook."""

import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

from maquette.cli.command_line import functions
from maquette.cli.command_line.registry import STAGES
from maquette.model.loading import find_checkpoint
from maquette.training import read_record
from support.small_runs import write_documents


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a run of a second, but for its size."""
    root = tmp_path_factory.mktemp("processes")
    (root / "documents").mkdir()
    write_documents(root / "documents")
    return [
        f"outputs={root / 'outputs'}", "source=jsonl", f"source.path={root / 'documents'}",
        "corpus.near_duplicates=1.0", "corpus.validation=0.1", "corpus.test=0", "corpus.workers=1", "tokenizer=byte",
        "shards.held_out_window=0", "shards.workers=1", "tokens=2560", "data.sequence_length=32",
        "data.batch_size_tokens=256", "data.validation_tokens=256", "callbacks.samples.prompts=[]", "num_validations=1",
        "trainer=ddp", "trainer.devices=2", "threads=1",
    ]  # fmt: skip


def finished(overrides: list[str]) -> set[str]:
    runs = Path(overrides[0].partition("=")[2]) / "runs"
    records = [read_record(folder) for folder in runs.iterdir() if folder.is_dir()]
    return {record.name.partition("-")[0] for record in records if record is not None and record.status == "finished"}


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two pairs of processes that train")
def test_in_a_sweep_one_after_the_other(overrides: list[str]) -> None:
    line = [*overrides, "size=10k,12k", "hydra/launcher=basic", "logger=none"]
    assert functions.sweep(STAGES["train"], line).exit_code == 0
    assert {"10k", "12k"} <= finished(overrides)


@pytest.mark.slow(reason="every process imports PyTorch and Lightning", minutes=1)
def test_in_a_sweep_side_by_side(overrides: list[str]) -> None:
    line = [*overrides, "size=11k,13k", "hydra/launcher=joblib", "logger=none"]
    program = [sys.executable, "-c", "from maquette.cli import main; main()", "train", "-m", *line]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"11k", "13k"} <= finished(overrides)


@pytest.mark.slow(reason="a kernel, and two processes that import PyTorch and Lightning")
def test_in_a_notebook(overrides: list[str]) -> None:
    cell = (
        "from maquette.cli.command_line.registry import STAGES\n"
        "from maquette.cli.command_line.composition import compose\n"
        f"record = STAGES['train'].run(compose(STAGES['train'], {[*overrides, 'size=14k', 'logger=none']!r}))\n"
        "print(record.name)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=300).execute()
    printed = "".join(one.get("text", "") for one in notebook.cells[0].outputs if one.get("name") == "stdout")
    assert find_checkpoint(printed.strip().splitlines()[-1], overrides[0].partition("=")[2])
