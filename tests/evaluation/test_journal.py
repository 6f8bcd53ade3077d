"""The journal of results: a changed byte is refused by name, or the row that it stands in is computed again."""

from pathlib import Path

from maquette.artifacts import StageError
from maquette.evaluation.journal import Journal

RESULTS = {"a hen": [1.25, "owl"], "a door": [3.5, "cow"]}


def test_a_flipped_bit_changes_no_result(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add(RESULTS.items())
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            results = Journal(path).results
        except StageError as error:
            assert str(path) in error.message
        else:
            assert results.items() <= RESULTS.items()
