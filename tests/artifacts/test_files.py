import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError, files
from maquette.artifacts.files import (
    atomic_file,
    atomic_folder,
    check_name,
    digest,
    file_digest,
    listed,
    locked,
    relocated,
    write_json,
    write_text,
)  # fmt: skip


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with atomic_folder(target) as folder:
        write_text(folder / "a", "1")
    with pytest.raises(RuntimeError), atomic_folder(target, lambda _: True) as folder:
        write_text(folder / "b", "2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    with atomic_folder(target, lambda _: True) as folder:
        write_text(folder / "c", "3")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def _write_until_killed(path: str) -> None:
    value = 0
    while True:
        value += 1
        write_json(path, {"values": [value] * 20_000})


def test_killed_in_the_middle_of_writing_the_file_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "values.json"
    for attempt in range(3):
        writer = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(str(target),))
        writer.start()
        deadline = time.monotonic() + 20
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.03 * (attempt + 1))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        values = json.loads(target.read_text())["values"]
        assert len(values) == 20_000 and len(set(values)) == 1


@pytest.mark.parametrize(
    ("code", "word"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_operating_system_errors_say_what_to_do(tmp_path: Path, code: int, word: str) -> None:
    with pytest.raises(StageError) as caught, atomic_file(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert word in str(caught.value) and str(tmp_path / "x") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_device_is_reported_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    write_text(target, "old")
    with pytest.raises(StageError, match="full"), atomic_file(target), Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)
        file.flush()
    assert target.read_text() == "old"


def _hold(path: str, entered: str) -> None:
    with locked(path):
        Path(entered).touch()
        time.sleep(0.3)
        write_text(Path(path).with_suffix(".done"), "first")


def test_a_second_process_waits_for_the_lock(tmp_path: Path) -> None:
    path, entered = tmp_path / "thing", tmp_path / "entered"
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(str(path), str(entered)))
    holder.start()
    while not entered.exists():
        time.sleep(0.01)
    with locked(path):
        assert path.with_suffix(".done").read_text() == "first"
    holder.join()


def test_digests(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


@pytest.mark.parametrize(
    "name", ["../up", "/etc/x", "a/b", "..", ".hidden", "", " ", "a\nb", "x" * 151, "\ud800", "a\\b"]
)
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"corpus\.name="):
        check_name(name, "corpus.name")


@pytest.mark.parametrize("name", ["a", "my books=old", "bücher", "v1.2", "x" * 150])
def test_other_names_are_taken(name: str) -> None:
    assert check_name(name, "name") == name


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "thesis" / "chapter.txt", "years")
    with pytest.raises(StageError, match=r"chapter\.txt"), atomic_folder(tmp_path / "thesis") as folder:
        write_text(folder / "a", "1")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years"
    write_text(tmp_path / "file", "x")
    with pytest.raises(StageError, match="is a file"), atomic_folder(tmp_path / "file"):
        pass
    assert listed(tmp_path) == [tmp_path / "file", tmp_path / "thesis"]


def test_what_others_put_there_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="late"), atomic_folder(tmp_path / "thing"):
        write_text(tmp_path / "thing" / "late", "x")
    assert (tmp_path / "thing" / "late").read_text() == "x"


def _replace_until_killed(path: str) -> None:
    value = 0
    while True:
        value += 1
        with atomic_folder(path, lambda _: True) as folder:
            for name in "ab":
                write_text(folder / name, str(value))


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_while_it_replaces_a_folder_one_of_both_is_there(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "thing"
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    for attempt in range(12):
        writer = multiprocessing.get_context("fork").Process(target=_replace_until_killed, args=(str(target),))
        writer.start()
        deadline = time.monotonic() + 20
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003 * (attempt + 1))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        files._swept.clear()  # the next process starts
        files.recover(tmp_path)
        assert (target / "a").read_text() == (target / "b").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_what_a_living_process_or_a_user_has_hidden_stays(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "mine") as temporary:
        write_text(tmp_path / ".mine.abc.partial", "a user's")
        files._swept.clear()
        files.recover(tmp_path)
        assert temporary.exists() and (tmp_path / ".mine.abc.partial").exists()
        assert listed(tmp_path) == []


def test_a_folder_is_where_its_results_were_moved_to(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "10k"
    place.mkdir(parents=True)
    assert relocated("/of/another/machine/outputs/runs/10k", tmp_path) == relocated(place, tmp_path) == place
    for elsewhere in ("/of/another/outputs/runs/20k", "/of/another/10k", "10k"):
        assert relocated(elsewhere, tmp_path) == Path(elsewhere)
