"""A digest in a commit: that it came before the run, and that it came too late."""

import subprocess
from pathlib import Path

import pytest

from maquette.scaling.predictions.commitment import Commitment, commitment, register
from maquette.scaling.predictions.prediction import write_prediction
from scaling.predictions.test_prediction import prediction


def git(folder: Path, *words: str) -> None:
    line = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.c",
        "-c",
        "commit.gpgsign=false",
        "-C",
        str(folder),
        *words,
    ]
    subprocess.run(line, check=True, capture_output=True)


def test_the_first_commit_that_holds_a_prediction_is_named(tmp_path: Path) -> None:
    one, other = (
        write_prediction(prediction(), tmp_path / "outputs"),
        write_prediction(prediction(), tmp_path / "outputs"),
    )
    path = tmp_path / "predictions.txt"
    register(one, path)
    register(one, path)
    assert path.read_text().count(one.digest) == 1
    assert commitment(one.digest, tmp_path) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "predictions.txt")
    git(tmp_path, "commit", "-qm", "a prediction")
    register(other, path)
    git(tmp_path, "commit", "-qam", "another")
    first, second = commitment(one.digest, tmp_path), commitment(other.digest, tmp_path)
    assert first is not None and second is not None and first.commit != second.commit
    assert commitment("0" * 64, tmp_path) is None


@pytest.mark.parametrize(
    ("began", "place"), [("2026-01-02T00:00:00+00:00", "before"), ("2025-12-31T00:00:00+00:00", "after")]
)
def test_a_commit_after_the_run_proves_nothing(began: str, place: str) -> None:
    words = Commitment("c" * 40, "2026-01-01T00:00:00+00:00").words(began)
    assert f"{place} the run began" in words and "cccccccccccc" in words
