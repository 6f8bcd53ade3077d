"""The sweep over numbers of examples, small, from beginning to end."""

from pathlib import Path

import pytest

from maquette.cli import train
from maquette.cli.command_line import functions
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps import table
from maquette.cli.sweeps.jobs import read_line
from maquette.cli.sweeps.stored import stored_plan
from support.small_examples import base_settings
from support.small_runs import write_documents


@pytest.mark.slow(reason="trains a base model and a sweep of fine-tuned ones")
def test_more_and_more_examples(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    start = base_settings(tmp_path, tmp_path / "documents")
    start.data.sequence_length = 256
    start_folder = train.run(start).folder
    overrides = [
        "+sweep=sft_size", f"checkpoint='{start_folder}'", f"outputs='{tmp_path}'",
        "instructions.limit=16,32", "instructions.held_out=16", "logger=none", "objective.batch_size=8",
        "objective.epochs=1", "num_validations=1",
    ]  # fmt: skip
    assert functions.sweep(STAGES["train"], overrides).exit_code == 0
    (folder,) = (tmp_path / "sweeps").glob("sft_size-*")
    assert (folder / "figures" / "sft_size.png").stat().st_size > 1000
    records = table._finished(folder)
    assert sorted(record.facts["train"]["examples"] for record in records) == [16, 32]
    # Found finished before anything is launched, until what the runs read has changed.
    line = read_line(STAGES["train"], overrides)
    result = stored_plan(line)
    assert result is not None and all(job.is_done for job in result.jobs)
    (Path(start_folder) / "model" / "config.json").write_text("{}")
    assert stored_plan(line) is None
