import json
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.corpus.document import read_documents
from maquette.corpus.pipeline import CLEAN, judge_on


def test_clean_documents_take_the_place_of_a_validation_split(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "One clean text.  \r\n", "domain": "books"}, {"id": "b", "text": "   "}]
    path = tmp_path / "clean.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "corpus").mkdir()
    assert judge_on(path, tmp_path / "corpus") == {"documents": 1, "bytes": 15}
    found = list(read_documents(tmp_path / "corpus", "validation", CLEAN))
    assert [document.text for document in found] == ["One clean text."]


def test_what_can_not_be_judged_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"corpus\.judge|missing"):
        judge_on(tmp_path / "missing.jsonl", tmp_path)
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(StageError, match="no documents"):
        judge_on(tmp_path / "empty.jsonl", tmp_path)
