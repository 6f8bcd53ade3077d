"""What a killed process leaves half written, hidden, is never taken for an artifact, a run, a result or a figure."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.faults.kills import WRITERS, Writer, attack

from maquette.artifacts.files import listed
from maquette.artifacts.manifest import build, digest_of_files, read_manifest
from maquette.artifacts.reading import write_sealed
from maquette.artifacts.run_file import read_runs, write_run
from maquette.cli.command_line.model_config import LeaderboardStage
from maquette.cli.leaderboard import _folders
from maquette.cli.sweeps.work import Files
from maquette.data.examples import Examples
from maquette.scaling.fits.recorded import find_tokens
from maquette.scaling.fits.stored_fit import FACTS, find_fit
from maquette.scaling.predictions.prediction import read_predictions
from maquette.tracking.run_log import RunLog
from maquette.training.checkpoint_io import CheckpointFolder

HALF = ".good.0123ab-999999-abcdefgh"
"""How a hidden name begins: of another machine, so that no process here can know that it is dead."""


def make_artifact(kind: str, root: Path, file: str) -> Path:
    def make(place: Path) -> dict[str, int]:
        (place / file).write_text("{}")
        (place / f".{file}.0123ab-999999-abcdefgh.partial").write_text("half")
        return {}

    return build(kind, root, name="good", label="x", config={}, inputs={}, make=make, say=lambda _: None)


def leave_half(good: Path, *missing: str) -> None:
    """Hidden copies of a folder or file beside it, as `atomic_folder` has them, without some of its files."""
    for ending in ("partial", "old"):
        half = good.with_name(f"{HALF}.{ending}")
        if good.is_file():
            half.with_suffix(f".{ending}{good.suffix}").write_text('{"half')
        else:
            shutil.copytree(good, half)
            for name in missing:
                (half / name).unlink()


def test_half_a_fit_disables_nothing(tmp_path: Path) -> None:
    good = make_artifact("fits", tmp_path, FACTS)
    leave_half(good, "manifest.json")
    assert find_fit(None, tmp_path) == find_fit("good", tmp_path) == good
    assert set(read_manifest(good).files) == {FACTS}


def test_half_tokens_are_not_found(tmp_path: Path) -> None:
    good = make_artifact("tokens", tmp_path / "artifacts", "a.txt")
    leave_half(good, "manifest.json")
    for half in (tmp_path / "artifacts" / "tokens").glob(f"{HALF}*"):
        (half / "manifest.json").write_text("{")
    assert find_tokens(tmp_path, "another") is None
    assert find_tokens(tmp_path, read_manifest(good).digest) == good


def test_half_a_run_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "good", {"status": "finished"})
    leave_half(tmp_path / "runs" / "good")
    for half in (tmp_path / "runs").glob(f"{HALF}*"):
        (half / "run.json").write_text("{")
    assert list(read_runs(tmp_path)) == [tmp_path / "runs" / "good"]


def test_half_evaluations_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "evaluations" / "good").mkdir(parents=True)
    leave_half(tmp_path / "evaluations" / "good")
    config = LeaderboardStage(outputs=str(tmp_path))
    assert _folders(config, tmp_path / "evaluations") == [tmp_path / "evaluations" / "good"]


def test_half_a_job_is_none(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for path in (files.outcome(3), files.running(3)):
        path.parent.mkdir()
        write_sealed(path, {"status": "finished"})
        leave_half(path)
    assert list(files.outcomes()) == [3] == list(files.in_progress())


def test_half_predictions_checkpoints_examples_and_stores_are_none(tmp_path: Path) -> None:
    for name in ("predictions/good.json", "checkpoints/step-00000003.ckpt", "examples/good.npy", "store.db"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        digest = digest_of_files(path.parent, "*")
        leave_half(path)
        assert digest_of_files(path.parent, "*") == digest
        if name != "store.db":
            path.unlink()
    assert read_predictions(tmp_path) == []
    assert CheckpointFolder(tmp_path / "checkpoints").newest(lambda line: None) is None
    for part in ("tokens", "mask", "starts"):
        np.save(tmp_path / "examples" / f"{part}.npy", np.zeros(1, np.int64))
    (tmp_path / "examples" / "names.json").write_text("{}")
    assert len(Examples.load(tmp_path / "examples")) == 0


def test_half_files_are_not_uploaded(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    (figures / "more").mkdir(parents=True)
    for path in (figures / "good.png", figures / "more" / "good.png"):
        path.write_text("whole")
        leave_half(path)
    (figures / f"{HALF}.partial").mkdir()
    (figures / f"{HALF}.partial" / "good.png").write_text("half")
    uploaded = []

    class Client:
        def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
            uploaded.append((Path(path).relative_to(figures).as_posix(), folder))

    log = RunLog(Client(), "run")  # type: ignore[arg-type]
    log.log_artifact(figures, "figures")
    log.log_artifact(figures)
    assert log.flush()
    names = ("good.png", "more/good.png")
    assert uploaded == [*zip(names, ("figures", "figures/more"), strict=True), *zip(names, (None, "more"), strict=True)]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_nothing_is_lost_where_a_writer_is_killed(writer: Writer, tmp_path: Path) -> None:
    killed, survived, lost = attack(writer, tmp_path, seed=1, kills=9)
    assert killed == survived >= 9, lost
    assert not listed(tmp_path)


def test_the_check_sees_what_is_lost(tmp_path: Path) -> None:
    """A writer that acknowledges before it has written is found out."""
    writer = WRITERS[0]

    def early(folder: Path) -> object:
        while True:
            yield
            (folder / "rows.jsonl").write_text(json.dumps({"n": 0}) + "\n")

    killed, survived, lost = attack(Writer("early", early, writer.count), tmp_path, seed=1, kills=3)  # type: ignore[arg-type]
    assert survived < killed and "acknowledged" in lost[0]
