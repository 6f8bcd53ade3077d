"""What a run says of the machine and the code it ran on."""

import subprocess
from pathlib import Path

from maquette.tracking import describe_environment, lineage_tags, peak_memory_bytes
from maquette.tracking.environment import git_commit


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
    )


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "one")
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "a.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}+changes"


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None


def test_the_tags_name_hardware_and_versions() -> None:
    tags = describe_environment()
    assert " x " in tags["hardware"]
    assert tags["version.torch"].startswith("2.")
    assert tags["version.maquette-lm"]


def test_peak_memory_is_in_bytes() -> None:
    block = bytearray(64_000_000)
    assert peak_memory_bytes() > len(block)


def test_lineage_leaves_out_what_is_not_known() -> None:
    assert lineage_tags({"tokens": "ab"}, checkpoint="runs/x") == {"digest.tokens": "ab", "checkpoint.from": "runs/x"}
    assert lineage_tags({}, parent="1") == {"mlflow.parentRunId": "1"}
