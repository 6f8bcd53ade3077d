"""Finding runs: typed columns, MLflow's filters, and answers where there is nothing."""

from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.tracking import TrackingConfig, find_runs, start_run
from maquette.tracking.rows import read_server


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
    through_client = read_server(f"sqlite:///{runs / 'mlflow.db'}", "maquette", text, None)
    assert [row.info.run_name for row in through_client] == ["run-300k"]
    assert list(find_runs(runs, filter="tags.kind = 'x'", limit=2)["name"]) == ["run-1m", "run-300k"]


def test_a_server_gives_the_same_rows(runs: Path) -> None:
    rows = read_server(f"sqlite:///{runs / 'mlflow.db'}", None, None, 2)
    table = find_runs(runs, limit=2)
    assert [row.info.run_id for row in rows] == list(table["run_id"])
    assert [row.data.metrics["loss"] for row in rows] == list(table["loss"])
    assert [row.data.params["model.hidden_size"] for row in rows] == [
        str(width) for width in table["model.hidden_size"]
    ]


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


def test_a_run_whose_process_is_gone_has_died(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.tracking import process

    settings = {"outputs": outputs, "folder": outputs, "params": {}, "tags": {}}
    with start_run(TrackingConfig(), name="alive", **settings) as alive:
        assert list(find_runs(outputs)["status"]) == ["RUNNING"]
        alive.set_tags({"process": f"{process.platform.node()} 4194999 1"})
        alive.flush()
        assert list(find_runs(outputs)["status"]) == ["DIED"]
        alive.set_tags({"process": "another-machine 4194999 1"})
        alive.flush()
        assert list(find_runs(outputs)["status"]) == ["RUNNING"]
