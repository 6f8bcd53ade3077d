import functools
import os
import signal
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.corpus.curation.shards import Watch, run_shards


def run(folder: Path, work: object, count: int = 3, processes: int = 2, seconds: float = 20.0) -> list[int]:
    return run_shards(
        functools.partial(work, folder),  # type: ignore[arg-type]
        [10.0] * count,
        lambda number: (folder / f"{number}.txt").exists(),
        folder / "notes",
        processes=processes,
        description="work",
        seconds=seconds,
    )


def results(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*.txt"))]


def pages(folder: Path, number: int, watch: Watch) -> None:
    """Shard 1's page 2 kills its process, page 3 never ends."""
    done = []
    for page in range(5):
        if not watch(page, 2 * page):
            continue
        if number == 1 and page == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        while number == 1 and page == 3:
            pass
        done.append(page)
    (folder / f"{number}.txt").write_text(f"{number}: {done}")


def hopeless(folder: Path, number: int, watch: Watch) -> None:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{number}.txt").write_text("done")


def complaining(folder: Path, number: int, watch: Watch) -> None:
    raise StageError("the file is gone", "get it again")


def test_a_page_that_kills_its_process_or_never_ends_costs_itself(tmp_path: Path) -> None:
    assert run(tmp_path, pages, seconds=0.3) == []
    assert results(tmp_path) == ["0: [0, 1, 2, 3, 4]", "1: [0, 1, 4]", "2: [0, 1, 2, 3, 4]"]


def test_a_process_that_dies_between_pages_costs_its_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, hopeless) == [0]
    assert results(tmp_path) == ["done", "done"]
    assert "shard 0 is lost" in capsys.readouterr().err


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("earlier")
    assert run(tmp_path, hopeless, processes=1) == [0]
    assert results(tmp_path) == ["earlier", "done"]


def test_an_error_for_people_is_handed_on(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the file is gone") as raised:
        run(tmp_path, complaining)
    assert raised.value.hint == "get it again"
