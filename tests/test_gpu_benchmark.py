"""benchmarks/gpu.py: every part runs on a CPU with tiny shapes, and a second call measures nothing again."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.slow(reason="collects tests and trains small models in a process of its own")
def test_every_part_runs(tmp_path: Path) -> None:
    done = run("--smoke", "--outputs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert all("smoke test" in row["hardware"] and float(row["ms"]) > 0 for row in rows)
    names = {row["what"] for row in rows}
    assert {"tests marked cuda", "train 124M", "train 1B", "DPO step 124M", "PPO step 124M", "checkpoint 1B"} <= names
    lines = (tmp_path / "parts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts.jsonl").write_text("".join(lines[:-1]))  # as after a kill
    again = run("--smoke", "--outputs", str(tmp_path))
    assert "checkpoints ..." in again.stdout and "attention ..." not in again.stdout
    assert len(list(csv.DictReader((tmp_path / "table.csv").open()))) == len(rows)
