"""An answer that is kept counts only as long as everything that it was read from is the same."""

from pathlib import Path

import pytest

from maquette.artifacts import manifest as module
from maquette.artifacts.manifest import digest_of_files, recall, remember


def test_an_answer_counts_for_its_sources_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    assert recall(path, {"runs": "a"}) is None
    remember(path, {"runs": "a"}, {"fit": "one"})
    assert recall(path, {"runs": "a"}) == {"fit": "one"}
    assert recall(path, {"runs": "b"}) is None
    assert recall(path, {"runs": "a", "more": 1}) is None


def test_another_version_of_the_program_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(tmp_path / "kept.json", {"runs": "a"}, 1)
    monkeypatch.setattr(module, "program_digest", lambda: "another")
    assert recall(tmp_path / "kept.json", {"runs": "a"}) is None


def test_what_has_no_digest_is_never_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    remember(path, {"store": None}, 1)
    assert not path.exists() and recall(path, {"store": None}) is None


def test_a_damaged_file_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    remember(path, {"runs": "a"}, 1)
    path.write_bytes(path.read_bytes()[:20])
    assert recall(path, {"runs": "a"}) is None


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_the_digest_of_files_changes_with_any_of_them(tmp_path: Path, change: str) -> None:
    for name in ("a.json", "b.json", "c.txt"):
        (tmp_path / name).write_text(name)
    before = digest_of_files(tmp_path, "*.json")
    (tmp_path / "c.txt").write_text("matches no pattern")
    assert digest_of_files(tmp_path, "*.json") == before
    if change == "content":
        (tmp_path / "a.json").write_text("b.json")
    elif change == "name":
        (tmp_path / "a.json").rename(tmp_path / "d.json")
    elif change == "added":
        (tmp_path / "e.json").write_text("")
    else:
        (tmp_path / "a.json").unlink()
    assert digest_of_files(tmp_path, "*.json") != before
