"""Finding runs: typed columns, MLflow's filters, and answers where there is nothing."""

from pathlib import Path

import pandas as pd
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.tracking import TrackingConfig, find_runs, start_run


@pytest.fixture
def runs(outputs: Path) -> Path:
    for size, loss, shift in (("100k", 3.5, True), ("300k", 3.0, False), ("1m", 2.5, True)):
        params = {
            "size": size,
            "model": {"hidden_size": int(loss * 10), "token_shift": shift, "heads": None},
            "loss": "nll",
        }
        with start_run(
            TrackingConfig(), outputs=outputs, name=f"run-{size}", folder=outputs, params=params, tags={"kind": "x"}
        ) as log:
            log.log_metrics({"loss": loss + 1, "tokens": 10}, 1)
            log.log_metrics({"loss": loss}, 2)
    return outputs


def test_a_table_with_typed_columns_newest_first(runs: Path) -> None:
    table = find_runs(runs)
    assert list(table["name"]) == ["run-1m", "run-300k", "run-100k"]
    assert list(table["loss"]) == [2.5, 3.0, 3.5]
    assert list(table["model.hidden_size"]) == [25, 30, 35]
    assert list(table["model.token_shift"]) == [True, False, True]
    assert table["model.heads"].isna().all()
    assert list(table["params.loss"]) == ["nll"] * 3
    assert set(table["status"]) == {"FINISHED"}
    assert list(table["tags.kind"]) == ["x"] * 3
    assert (table["seconds"] > 0).all()
    assert str(table["start"].dtype).startswith("datetime64")


def test_filters_mean_what_they_mean_in_mlflow(runs: Path) -> None:
    text = "params.size != '1m' and metrics.loss < 3.2 and attributes.status = 'FINISHED'"
    assert list(find_runs(runs, filter=text)["name"]) == ["run-300k"]
    assert list(find_runs(runs, filter=text, experiment=None)["name"]) == ["run-300k"]
    assert list(find_runs(runs, filter="tags.kind = 'x'", limit=2)["name"]) == ["run-1m", "run-300k"]


def test_a_store_given_by_its_address_gives_the_same_rows(runs: Path, tmp_path: Path) -> None:
    by_address = find_runs(tmp_path, uri=f"sqlite:///{runs / 'mlflow.db'}")
    pd.testing.assert_frame_equal(by_address, find_runs(runs))


def test_more_runs_than_one_call_gives(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = find_runs(runs)
    monkeypatch.setattr("maquette.tracking.search._PAGE", 2)
    pd.testing.assert_frame_equal(find_runs(runs), expected)
    assert list(find_runs(runs, limit=1)["name"]) == ["run-1m"]


def test_a_store_that_can_only_be_read(runs: Path) -> None:
    (runs / "mlflow.db").chmod(0o444)
    runs.chmod(0o555)
    try:
        assert len(find_runs(runs)) == 3
    finally:
        runs.chmod(0o755)


def test_columns_and_limit(runs: Path) -> None:
    table = find_runs(runs, columns=["size", "loss"], limit=1)
    assert table.to_dict("records") == [{"size": "1m", "loss": 2.5}]
    with pytest.raises(ConfigError, match=r"Did you mean 'model\.hidden_size'"):
        find_runs(runs, columns=["model.hiden_size"])


def test_a_filter_that_can_not_be_read_is_told(runs: Path) -> None:
    with pytest.raises(ConfigError, match="filter=size is small"):
        find_runs(runs, filter="size is small")


def test_no_store_and_no_runs_give_empty_tables(tmp_path: Path, outputs: Path) -> None:
    for folder in (tmp_path / "nowhere", outputs):
        table = find_runs(folder, columns=["name", "loss"])
        assert len(table) == 0
        assert "name" in table.columns


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StageError, match="not a database"):
        find_runs(tmp_path)


def test_a_run_whose_process_is_gone_is_stale(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.tracking import environment

    settings = {"outputs": outputs, "folder": outputs, "params": {}, "tags": {}}
    with start_run(TrackingConfig(), name="alive", **settings) as alive:
        assert list(find_runs(outputs)["status"]) == ["RUNNING"]
        alive.set_tags({"process": f"{environment.platform.node()} 4194999 1"})
        alive.flush()
        assert list(find_runs(outputs)["status"]) == ["STALE"]
        alive.set_tags({"process": "another-machine 4194999 1"})
        alive.flush()
        assert list(find_runs(outputs)["status"]) == ["RUNNING"]
