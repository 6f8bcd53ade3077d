"""From the CPU to the GPU: what is predicted is trained, outcomes stay, and a run that is out of time is resumed."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import cpu_to_gpu
import pytest
from cpu_to_gpu import Settings, main, read_rows, until, write_rows

from support.small_runs import write_documents


def row(name: str, **changes: str) -> dict[str, str]:
    numbers = dict.fromkeys(cpu_to_gpu.COLUMNS, "1.5")
    return {**numbers, "prediction": name, "compute": "1e15", "observed": "", "trained_on": "", **changes}


def test_outcomes_stay_when_predictions_are_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Settings(results=str(tmp_path))
    write_rows(config, [row("a", observed="1.4", trained_on="a GPU"), row("b")])
    write_rows(config, [row("a"), row("b"), row("c", compute="1e16")])
    assert [one["observed"] for one in read_rows(config)] == ["1.4", "", ""]
    assert main(["report", f"results={tmp_path}"]) == 0
    assert "a GPU" in capsys.readouterr().out and (tmp_path / "cpu_to_gpu.svg").stat().st_size > 1000


def test_a_larger_size_is_taken_where_the_text_does_not_last() -> None:
    assert cpu_to_gpu.size_for(6e12, 1e6, unique=1_000_000) == "null"
    larger = cpu_to_gpu.size_for(6e12, 3e6, unique=1_000_000)
    assert larger is not None and 6e12 / 6 / float(larger) == 2e6  # tokens, which are two epochs
    assert cpu_to_gpu.size_for(6e12, 4.1e6, unique=1_000_000) is None


def test_a_run_that_is_out_of_time_is_told_to_save(tmp_path: Path) -> None:
    mark = tmp_path / "saved"
    program = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal({int(signal.SIGTERM)}, lambda *_: (pathlib.Path({str(mark)!r}).touch(), sys.exit(143)))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    assert until(time.monotonic() + 4, [sys.executable, "-c", program]) is None
    assert mark.exists() == (tmp_path / "ready").exists()
    assert until(time.monotonic() + 60, [sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert until(time.monotonic() - 1, ["no such program"]) is None


def test_misuse_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at = f"results={tmp_path}"
    assert main(["train", at]) == 1 and "predict first" in capsys.readouterr().err
    assert main(["train", at, "size=3m"]) == 2 and "size=3m" in capsys.readouterr().err
    assert main(["predict", "minutes=soon"]) == 2 and "minutes" in capsys.readouterr().err
    assert main(["predict", f"outputs={tmp_path}"]) == 2 and "a place of this machine" in capsys.readouterr().err
    assert main([]) == 2 and "--smoke" in capsys.readouterr().err
    write_rows(Settings(results=str(tmp_path)), [row("a")])
    monkeypatch.setattr(cpu_to_gpu.torch.cuda, "is_available", lambda: False)
    assert main(["train", at]) == 1 and "no GPU" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures_here")
@pytest.mark.slow(reason="trains a family of nine, its prediction in a process of its own, and judges it", minutes=1)
def test_from_the_family_to_the_verdict(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents", 180)  # of fewer the best size would read too much again
    words = ["source=jsonl", "source.path=documents", "source.limit=null", "corpus.near_duplicates=1.0"]
    assert main(["predict", "--smoke", *words]) == 0
    config = Settings(**{name: cpu_to_gpu.SMOKE[name] for name in ("outputs", "results")})
    (before,) = read_rows(config)
    assert before["prediction"] in (Path(config.results) / "predictions.txt").read_text()[:8]
    assert 0 < float(before["epochs"]) <= cpu_to_gpu.MOST_EPOCHS and not before["observed"]
    assert "1e+12 FLOPs: left out" in capsys.readouterr().err
    assert main(["train", "--smoke", "minutes=0"]) == 0 and not read_rows(config)[0]["observed"]
    assert main(["train", "--smoke"]) == 0
    (after,) = read_rows(config)
    assert float(after["observed"]) > 0 and after["trained_on"] and after["predicted"] == before["predicted"]
    monkeypatch.setattr(cpu_to_gpu, "until", lambda *_: pytest.fail("it is finished"))
    assert main(["train", "--smoke"]) == 0 and main(["predict", "--smoke", *words]) == 0
