from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maquette.artifacts import StageError
from maquette.corpus import Document, domains, read_documents, write_documents
from maquette.corpus.document import Rejection, clean, normalize

DOCUMENTS = [
    Document("1", "one", None, "a", {"group": "g", "number": 3}),
    Document("2", "zwei ü 🙂", "https://b.example", "a"),
    Document("3", "three", None, "b"),
]


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    write_documents(tmp_path / "train.parquet", DOCUMENTS)
    assert list(read_documents(tmp_path, "train")) == DOCUMENTS
    assert list(read_documents(tmp_path, "train", "b")) == DOCUMENTS[2:]
    assert domains(tmp_path, "train") == ["a", "b"]
    file = pq.ParquetFile(tmp_path / "train.parquet")
    assert file.schema_arrow.names == ["id", "text", "url", "domain", "meta"]
    assert file.metadata.num_row_groups == 2
    assert file.metadata.row_group(0).column(1).compression == "ZSTD"


def test_an_empty_split_is_a_file_without_rows(tmp_path: Path) -> None:
    write_documents(tmp_path / "test.parquet", [])
    assert list(read_documents(tmp_path, "test")) == []
    assert domains(tmp_path, "test") == []


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_documents(tmp_path / name, DOCUMENTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"train\.parquet is missing"):
        list(read_documents(tmp_path, "train"))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(StageError, match=r"train\.parquet is damaged"):
        list(read_documents(tmp_path, "train"))
    with pytest.raises(StageError, match="no split 'dev'"):
        list(read_documents(tmp_path, "dev"))
    pq.write_table(pq.read_table(_written(tmp_path)).drop(["meta"]), tmp_path / "test.parquet")
    with pytest.raises(StageError, match="no column 'meta'"):
        domains(tmp_path, "test")
    table = pq.read_table(_written(tmp_path))
    place = table.schema.get_field_index("domain")
    pq.write_table(table.set_column(place, "domain", table["domain"].cast("binary")), tmp_path / "test.parquet")
    with pytest.raises(StageError, match=r"test\.parquet is damaged: its column 'domain'"):
        list(read_documents(tmp_path, "test"))


def _written(folder: Path) -> Path:
    write_documents(folder / "other.parquet", DOCUMENTS)
    return folder / "other.parquet"


def test_white_space_and_control_characters_are_normalized() -> None:
    document = Document("1", "\ufeffa \r\n\tb\t\rc\x00\x0c\n\n\n  d\ud800 \n")
    cleaned = normalize(document)
    assert cleaned.text == "a\n\tb\nc\n\n\n  d\ufffd"
    assert normalize(cleaned) is cleaned


def test_what_is_too_short_once_it_is_normalized_is_rejected() -> None:
    result = clean(Document("1", "  \n"), 1)
    assert isinstance(result, Rejection)
    assert (result.reason, result.value) == ("too short", 0)
    assert clean(Document("1", "a \n"), 2) == Rejection(Document("1", "a"), "too short", 1)
    assert clean(Document("1", " a\n"), 1) == Document("1", " a")
