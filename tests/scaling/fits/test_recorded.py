"""Which runs of the store a name means, and which of them count."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.scaling.fits import recorded
from maquette.scaling.fits.recorded import recorded_runs
from maquette.tracking.config import TrackingConfig


def run(name: str, parent: str | None, loss: float | None = 3.0, **changes: Any) -> dict[str, Any]:
    row = {
        "name": name, "run_id": f"id-{name}", "status": "FINISHED", "parent": parent, "folder": f"/runs/{name}",
        "N": 1e5, "N_core": 6e4, "D": 2e6, "C": 1.2e12, "seed": 0.0, "validation/loss": loss, "tags.kind": "train",
        "tags.fingerprint": f"print-{name}", "copying/score": 0.1,
    }  # fmt: skip
    return row | changes


def sweep(name: str) -> dict[str, Any]:
    return {"name": name, "run_id": f"id-{name}", "status": "FINISHED", "tags.kind": "parent"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`store(rows)`: what the tracker answers, newest first; returns the table that a name means."""

    def answer(rows: list[dict[str, Any]], runs: str | None) -> Any:
        frame = pd.DataFrame(rows)

        def find_runs(outputs: Any, **settings: Any) -> pd.DataFrame:
            return frame[frame["name"] == "c"] if settings.get("filter") else frame

        monkeypatch.setattr("maquette.tracking.find_runs", find_runs, raising=False)
        return recorded_runs(runs, tmp_path, TrackingConfig())

    return answer


ROWS = [
    run("d", "id-ladder-2"), run("c", "id-isoflop-2"), run("b", "id-isoflop-2", 2.5), sweep("ladder-2"),
    sweep("isoflop-2"), run("a", "id-isoflop-1"), sweep("isoflop-1"),
]  # fmt: skip


def test_names_mean_sweeps(store: Any) -> None:
    for runs, names in [
        (None, {"d"}),
        ("isoflop-1", {"a"}),
        ("isoflop", {"b", "c"}),
        ("id-isoflop-1", {"a"}),
        ("isoflop-1+ladder", {"a", "d"}),
        ("params.x = '1'", {"c"}),
    ]:
        assert set(store(ROWS, runs).names) == names, runs
    with pytest.raises(ConfigError, match="Did you mean isoflop-2"):
        store(ROWS, "isoflop-3")


def test_without_a_sweep_all_runs_count(store: Any) -> None:
    assert len(store([run("a", None), run("b", None)], None)) == 2
    with pytest.raises(StageError, match="no runs"):
        store([], None)


def test_runs_that_do_not_count_are_named(store: Any) -> None:
    rows = [run("a", "id-s-1"), run("b", "id-s-1", None), run("c", "id-s-1", status="FAILED"), sweep("s-1")]
    table = store(rows, "s")
    assert table.names == ("a",)
    assert "validation/loss" in dict(table.left_out)["b"] and "FAILED" in dict(table.left_out)["c"]
    early = store([run("a", "id-s-1", tokens=2e6), run("b", "id-s-1", tokens=4e5), sweep("s-1")], "s")
    assert early.names == ("a",) and "400,000 of 2,000,000" in dict(early.left_out)["b"]
    with pytest.raises(StageError, match="no finished run"):
        store([run("b", "id-s-1", None), sweep("s-1")], "s")


def test_a_failed_repetition_leaves_the_finished_run(store: Any) -> None:
    again = run("a2", "id-s-1", None, status="FAILED", **{"tags.fingerprint": "print-a"})
    rows = [again, run("a", "id-s-1"), run("b", "id-s-1"), sweep("s-1")]
    assert store(rows, "s").names == ("a", "b") and store(rows, "s").left_out == ()
    table = store([again, run("a", "id-s-1", None, status="FAILED"), run("b", "id-s-1"), sweep("s-1")], "s")
    assert table.names == ("b",) and [name for name, _ in table.left_out] == ["a2"]


def test_runs_beside_branches_measure_a_bias_and_are_no_points(store: Any) -> None:
    trunk = run("trunk", "id-s-1", None, **{"tags.kind": "trunk", "D": 4e6})
    branches = [run("short", "id-trunk", 2.9), run("long", "id-trunk", 2.7, D=4e6)]
    own = run("own", "id-s-1", 2.8)
    others = [run("other seed", "id-s-1", 2.9, seed=1.0), run("other size", "id-s-1", 2.9, N=2e5)]
    table = store([own, *others, *branches, trunk, sweep("s-1")], "s")
    assert sorted(table.names) == ["long", "other seed", "other size", "short"]
    assert "what branches cost" in dict(table.left_out)["own"] and "trunk" in dict(table.left_out)["trunk"]


def test_of_one_fingerprint_the_newest_counts(store: Any) -> None:
    rows = [run("new", "id-s-1", 2.0), run("old", "id-s-1", 3.0, **{"tags.fingerprint": "print-new"}), sweep("s-1")]
    assert store(rows, "s").loss.tolist() == [2.0]


def test_jobs_that_an_earlier_sweep_had_done_belong_to_both(store: Any, tmp_path: Path) -> None:
    jobs = tmp_path / "sweeps" / "isoflop-2" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "0000.json").write_text(json.dumps({"job": [], "result": "/runs/a"}))
    (jobs / "0001.json").write_text("{half")
    assert set(store(ROWS, "isoflop-2").names) == {"a", "b", "c"}


def test_branches_count_and_their_trunk_does_not(store: Any) -> None:
    trunk = run("t", "id-s-1", **{"tags.kind": "trunk"})
    rows = [run("x", "id-t"), run("y", "id-t", 2.5), trunk, sweep("s-1")]
    for runs in (None, "s"):
        table = store(rows, runs)
        assert set(table.names) == {"x", "y"} and "a trunk" in dict(table.left_out)["t"]


def test_numbers_and_conventions(store: Any) -> None:
    table = store(ROWS, "isoflop-2")
    assert table.compute.tolist() == [1.2e12] * 2 and table.copying is not None
    assert table.in_convention("kaplan").compute.tolist() == [6 * 6e4 * 2e6] * 2
    assert store([run("a", None), run("b", None, **{"copying/score": None})], None).copying is None
    assert table.unigram_entropy is None
    assert store([run("a", None, unigram_entropy=6.1)], None).unigram_entropy.tolist() == [6.1]
    assert recorded.LOSS == "validation/loss"
