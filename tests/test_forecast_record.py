"""benchmarks/forecast_record.py: which laws there are, families that are kept once, and what today's predictor says."""

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "forecast_record.py"


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("forecast_record", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twelve_laws_have_every_pair_of_part_and_model(record: Any) -> None:
    for first in (12, 36, 48):
        laws = [record.law(number) for number in range(first, first + 12)]
        assert len({(one.part, one.model) for one in laws}) == 12
    assert record.law(33).model == "transformer" and record.numbers("37-39") == [37, 38, 39]


def test_a_family_is_kept_once(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FAMILIES", tmp_path / "families.csv")
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*record.RUN.values(), "other"])
        writer.writeheader()
        writer.writerows(dict.fromkeys(record.RUN.values(), 1.23456789) | {"other": "x"} for _ in range(3))
    for number in (40, 41, 40):
        record.keep_family(record.law(number), "demo", tmp_path)
    rows = record.read_rows(tmp_path / "families.csv")
    assert [row["law"] for row in rows] == ["40"] * 3 + ["41"] * 3 and rows[0]["loss"] == "1.234568"


def test_what_is_filed_as_by_todays_predictor_is_what_it_says(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A change of the predictor gives the rows so far a ladder of their own, as `demo m=2.5`."""
    rows = record.read_rows(record.ROWS)
    families = {(row["ladder"], row["law"]) for row in record.read_rows(record.FAMILIES)}
    assert record.predict_again(rows) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum((row["ladder"], row["law"]) in families for row in rows) >= 10
    todays = [line for line in lines if re.match(r"(demo|1e14) +\d", line)]
    assert len(todays) == sum(row["ladder"] in ("demo", "1e14") for row in rows)
    for line in todays:
        predicted, today = re.findall(r"x .*?(\d\.\d+) \(.*today (\d\.\d+)", line)[0]
        assert float(predicted) == pytest.approx(float(today), abs=0.002), line
