"""The sweep over numbers of examples and the study of hallucinations, small, from beginning to end."""

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.cli import hallucination, train
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.functions import multirun
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps import conclusion
from maquette.cli.sweeps.jobs import read_line
from maquette.cli.sweeps.stored import stored_plan
from maquette.evaluation import hallucination as measurement
from support.small_examples import base_settings
from support.small_runs import write_documents


@pytest.mark.slow
def test_more_and_more_examples(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    start = base_settings(tmp_path, tmp_path / "documents")
    start.data.sequence_length = 256
    start_folder = train.run(start).folder
    words = [
        "+sweep=sft_size", f"checkpoint='{start_folder}'", f"outputs='{tmp_path}'",
        "instructions.limit=16,32", "instructions.held_out=16", "logger=none", "objective.batch_size=8",
        "objective.epochs=1", "num_validations=1",
    ]  # fmt: skip
    assert multirun(STAGES["train"], words) == 0
    (folder,) = (tmp_path / "sweeps").glob("sft_size-*")
    assert (folder / "figures" / "sft_size.png").stat().st_size > 1000
    records = conclusion._finished(folder)
    assert sorted(record.facts["train"]["examples"] for record in records) == [16, 32]
    # Found finished before anything is launched, until what the runs read has changed.
    line = read_line(STAGES["train"], words)
    found = stored_plan(line)
    assert found is not None and all(job.is_done for job in found.jobs)
    (Path(start_folder) / "model" / "config.json").write_text("{}")
    assert stored_plan(line) is None


@pytest.mark.slow
def test_making_things_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "_TOKENS", 6)
    words = [
        "+experiment=hallucination", f"outputs='{tmp_path}'", "tracking=none", "people=16", "shares=[0.0,1.0]",
        "size=20k", "tokens=20k", "repeats=4", "epochs=1",
    ]  # fmt: skip
    config: Any = compose(STAGES["hallucination"], words)
    folder = hallucination.run(config)
    results = json.loads((folder / "results.json").read_text())
    assert [one["unseen_share"] for one in results] == [0.0, 1.0]
    assert sum(results[0]["strangers"].values()) == 8
    assert (folder / "figures" / "hallucination.svg").exists()
    runs = sorted((tmp_path / "runs").iterdir())
    assert hallucination.run(config) == folder and sorted((tmp_path / "runs").iterdir()) == runs
