import shutil
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError, manifest
from maquette.artifacts.files import digest, write_text
from maquette.artifacts.manifest import FORMAT, build, digest_of_files, read_manifest, verify_files
from maquette.artifacts.reading import load_sealed, write_sealed


def _build(root: Path, calls: list[str], **changes: Any) -> Path:
    def make(folder: Path) -> dict[str, Any]:
        calls.append("made")
        write_text(folder / "part" / "data.txt", "hello")
        return {"words": 1}

    settings: dict[str, Any] = {
        "name": None,
        "label": "thing",
        "config": {"a": 1},
        "inputs": {"corpus": "abc"},
        "make": make,
        "say": lambda _: None,
    }
    return build("things", root, **{**settings, **changes})


def test_an_unchanged_artifact_is_not_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    first = _build(tmp_path, calls)
    assert _build(tmp_path, calls) == first and calls == ["made"]
    assert _build(tmp_path, calls, force=True) == first and len(calls) == 2
    assert _build(tmp_path, calls, inputs={"corpus": "other"}) != first and len(calls) == 3
    manifest = verify_files(first)
    assert manifest.facts == {"words": 1} and manifest.files["part/data.txt"]["bytes"] == 5


def test_content_decides_the_digest_not_the_name_or_time(tmp_path: Path) -> None:
    calls: list[str] = []
    one, two = (read_manifest(_build(tmp_path, calls, name=name)) for name in ("one", "two"))
    assert one.digest == two.digest


@pytest.mark.parametrize(
    "name", ["figures/corpus.png", "figures/corpus.svg", "curation.html", "report.md", "report.json"]
)
def test_pictures_and_pages_do_not_count_but_are_checked(tmp_path: Path, name: str) -> None:
    def make(drawn: str) -> Any:
        return lambda folder: write_text(folder / "data.txt", "hello") or write_text(folder / name, drawn) or {}

    one, two = (_build(tmp_path, [], name=drawn, make=make(drawn)) for drawn in ("one", "two"))
    assert (read_manifest(one).digest == read_manifest(two).digest) is (name != "report.json")
    (two / name).write_text("six")
    with pytest.raises(StageError, match="checksum"):
        verify_files(two)


def test_an_artifact_of_the_format_before_keeps_its_digest(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, Any]:
        write_text(folder / "figure.png", "drawn")
        return {}

    folder = _build(tmp_path, [], make=make)
    content = load_sealed(folder / "manifest.json")
    write_sealed(folder / "manifest.json", content | {"format": 3})
    sums = {name: entry["sha256"] for name, entry in content["files"].items()}
    assert read_manifest(_build(tmp_path, [])).digest == digest(sums) != digest({})
    write_sealed(folder / "manifest.json", content | {"format": 2})
    with pytest.raises(StageError, match="is of format 2"):
        _build(tmp_path, [])


def test_a_chosen_name_is_never_overwritten_silently(tmp_path: Path) -> None:
    calls: list[str] = []
    _build(tmp_path, calls, name="mine")
    with pytest.raises(ConfigError, match="a \\(1 there, 2 here\\)"):
        _build(tmp_path, calls, name="mine", config={"a": 2})


@pytest.mark.parametrize(("damage", "word"), [("cut", "bytes"), ("flip", "checksum"), ("remove", "missing")])
def test_damage_is_named(tmp_path: Path, damage: str, word: str) -> None:
    folder = _build(tmp_path, [])
    target = folder / "part" / "data.txt"
    if damage == "cut":
        target.write_bytes(target.read_bytes()[:-1])
    elif damage == "flip":
        target.write_bytes(b"jello")
    else:
        target.unlink()
    with pytest.raises(StageError, match=word) as caught:
        verify_files(folder)
    assert str(target) in str(caught.value)
    with pytest.raises(StageError, match=word) as caught:  # where it is found again, too
        _build(tmp_path, [])
    assert f"delete the folder {folder}" in str(caught.value)
    shutil.rmtree(folder)  # what the message says to do
    calls: list[str] = []
    assert _build(tmp_path, calls) == folder and calls == ["made"]
    verify_files(folder)


def test_of_large_artifacts_the_sizes_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _build(tmp_path, [])
    monkeypatch.setattr("maquette.artifacts.manifest.CHECKED_BYTES", 3)
    (folder / "part" / "data.txt").write_bytes(b"jello")
    assert _build(tmp_path, []) == folder
    (folder / "part" / "data.txt").write_bytes(b"hell")
    with pytest.raises(StageError, match="4 bytes where its manifest says 5"):
        _build(tmp_path, [])


def manifest_copy(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_damaged_and_newer_manifests_are_refused(tmp_path: Path) -> None:
    folder = _build(tmp_path, [])
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:40])
    with pytest.raises(StageError, match="damaged"):
        read_manifest(folder)
    manifest.write_text(text.replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(StageError, match="format"):
        read_manifest(folder)
    write_sealed(manifest, {**load_sealed(manifest_copy(manifest, text)), "maquette_version": "0.0.1"})
    with pytest.warns(UserWarning, match="was made by maquette"):
        read_manifest(folder)


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        write_text(folder / "half", "x")
        raise StageError("no")

    with pytest.raises(StageError):
        _build(tmp_path, [], make=fail)
    assert [path.name for path in (tmp_path / "things").iterdir() if not path.name.endswith(".lock")] == []


def test_any_changed_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    folder = _build(tmp_path, [])
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    content = read_manifest(folder)
    for place in range(len(whole)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        try:
            assert read_manifest(folder) == content  # white space between two values
        except StageError as error:
            assert "manifest.json" in error.message


@pytest.mark.parametrize("name", ["../../thesis", "..", "/thesis", ".x"])
def test_a_name_does_not_lead_out_of_the_outputs(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / "thesis" / "chapter", "years")
    with pytest.raises(ConfigError, match=r"corpus\.name"):
        _build(tmp_path / "outputs", [], name=name, key="corpus.name")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years"


@pytest.mark.parametrize("force", [False, True])
def test_what_maquette_did_not_make_is_not_replaced(tmp_path: Path, force: bool) -> None:
    write_text(tmp_path / "things" / "mine" / "chapter", "years")
    with pytest.raises(StageError, match="chapter"):
        _build(tmp_path, [], name="mine", force=force)
    assert (tmp_path / "things" / "mine" / "chapter").read_text() == "years"


def test_a_finished_artifact_is_found_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _build(tmp_path, [])
    monkeypatch.setattr("maquette.artifacts.manifest.locked", None)
    assert _build(tmp_path, []) == folder


def test_a_file_that_goes_while_files_are_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database's journal comes and goes with each transaction of another process."""
    (tmp_path / "store.db").write_text("rows")
    alone = digest_of_files(tmp_path, "store.db*")
    (tmp_path / "store.db-journal").touch()
    read = manifest.file_digest
    monkeypatch.setattr(
        manifest, "file_digest", lambda path: ((tmp_path / "store.db-journal").unlink(missing_ok=True), read(path))[1]
    )
    assert digest_of_files(tmp_path, "store.db*") == alone
