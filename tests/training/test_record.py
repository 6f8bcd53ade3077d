"""`run.json`: there and back, refused where another version wrote it, and what it says about runs that are alike."""

import dataclasses
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.artifacts.run_file import FINISHED, FORMAT, TRIED, RunFormatError, read_run, read_runs
from maquette.model.loading import latest_run
from maquette.recipe.run_spec import RunSpec
from maquette.training import read_record
from maquette.training.record import RunRecord, begin_record, is_assistant, why_trained_again
from support.small_specs import DIGESTS, make_spec, train_settings


def finished(outputs: Path, spec: RunSpec, **outcome: Any) -> RunRecord:
    """A run that went through, in its folder."""
    record = begin_record(spec, outputs / "runs" / spec.name).ended(finished=True, **outcome)
    record.save()
    return record


def test_there_and_back(tmp_path: Path) -> None:
    domains = {"code": {"loss": 0.1 + 0.2, "epochs": 1.0}}
    record = finished(tmp_path, make_spec(), step=7, validation_loss=1 / 3, domains=domains, metrics={"a/b": 1e-17})
    assert read_record(record.folder) == record
    raw = json.loads((Path(record.folder) / "run.json").read_text())
    assert raw["format"] == FORMAT and raw["spec"]["name"] == record.name and "tokens" not in raw
    assert (record.status, record.spec.size) == (FINISHED, record.spec.size)
    moved = Path(record.folder).rename(tmp_path / "moved")
    assert read_record(moved) == dataclasses.replace(record, folder=str(moved))
    assert read_record(tmp_path / "runs") is None and read_record(moved / "run.json") is None


@pytest.mark.parametrize("version", [None, 1, FORMAT - 1, FORMAT + 1])
def test_another_format_is_refused_by_name(tmp_path: Path, version: int | None) -> None:
    folder = tmp_path / "runs" / "old"
    folder.mkdir(parents=True)
    flat = {"name": "old", "status": "finished", "finished": "2099", "objective": "pretrain", "tokens": 1000}
    (folder / "run.json").write_text(json.dumps(flat if version is None else flat | {"format": version}))
    for read in (read_run, read_record):
        with pytest.raises(RunFormatError, match=r"runs/old has format .*run\.json") as error:
            read(folder)
        assert error.value.hint
    new = finished(tmp_path, make_spec())
    assert latest_run(tmp_path) == Path(new.folder)  # the old one is left out, and named


def test_runs_of_another_format_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "run.json").write_text("{}")
    assert read_runs(tmp_path) == {}
    assert "old" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", f'{{"format": {FORMAT}}}', f'{{"format": {FORMAT}, "spec": {{}}}}'])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StageError, match=r"run\.json is damaged"):
        read_record(tmp_path)


def test_a_run_that_was_tried_out_is_not_finished(tmp_path: Path) -> None:
    record = finished(tmp_path, make_spec(train_settings(trainer={"fast_dev_run": True})))
    assert record.status == TRIED
    assert begin_record(record.spec, tmp_path).ended(finished=False).status != FINISHED
    with pytest.raises(StageError, match="no finished run"):
        latest_run(tmp_path)


def test_why_a_run_is_trained_again(tmp_path: Path) -> None:
    spec = make_spec()
    assert why_trained_again(spec, tmp_path) is None
    first = finished(tmp_path, make_spec(train_settings(data={"sequence_length": 128}, seed=3)))
    assert why_trained_again(spec, tmp_path) == f"differs from {first.name}: seed (0, was 3)"
    finished(tmp_path, make_spec(digests=DIGESTS | {"corpus": "4" * 64}, label="another"))
    assert why_trained_again(spec, tmp_path) == f"differs from {first.name}: seed (0, was 3)"
    data = finished(tmp_path, make_spec(digests=DIGESTS | {"corpus": "4" * 64}))
    assert why_trained_again(spec, tmp_path) == f"differs from {data.name}: corpus (other data)"
    begin_record(spec, tmp_path / "runs" / spec.name).save()  # itself does not count
    assert why_trained_again(spec, tmp_path) == f"differs from {data.name}: corpus (other data)"


def test_edited_code_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_objective.py").write_text("class Objective:\n    weight = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = train_settings(objective={"_target_": "own_objective.Objective"})
    before = finished(tmp_path, make_spec(settings))
    (tmp_path / "own_objective.py").write_text("class Objective:\n    weight = 2\n")
    after = make_spec(settings)
    assert why_trained_again(after, tmp_path) == f"trained again, for own_objective has changed since {before.name}"


def test_a_run_with_a_part_that_is_gone_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own_callback.py"
    own.write_text("from lightning.pytorch import Callback\n\n\nclass Mine(Callback): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    finished(tmp_path, make_spec(train_settings(callbacks={"mine": {"_target_": "own_callback.Mine"}})))
    assert why_trained_again(make_spec(), tmp_path) is not None
    own.unlink()
    importlib.invalidate_caches()
    assert why_trained_again(make_spec(), tmp_path) is None


def test_a_run_is_ranked_by_what_its_objective_says(tmp_path: Path) -> None:
    measured = {"validation/loss": 3.0, "validation/reward": 0.5}
    record = begin_record(make_spec(), tmp_path).ended(finished=True, metrics=measured)
    assert record.metric == 3.0
    policy = dataclasses.replace(record, spec=dataclasses.replace(record.spec, objective="ppo"))
    assert policy.metric == 0.5
    assert dataclasses.replace(policy, metrics={}).metric is None


def test_a_model_of_others_answers_where_it_has_a_chat_template(tmp_path: Path) -> None:
    for template in (None, object()):
        tokenizer: Any = SimpleNamespace(template_chat=template)
        assert is_assistant(tmp_path, tokenizer) == (template is not None)
