import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.settings import check
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers

ROWS: list[dict[str, Any]] = [
    {"id": 7, "text": "first ü", "url": "https://a.example/x", "domain": "books", "meta": {"year": 1900}},
    {"text": "second"},
]


def read(kind: str, path: Path, **settings: Any) -> list[Document]:
    with workers(1) as pool:
        return list(open_source(SourceConfig(kind=kind, path=str(path), **settings)).documents(pool))


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_rows_become_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS) + b"\n")
    first, second = read("jsonl", tmp_path)
    assert first == Document("7", "first ü", "https://a.example/x", "books", {"year": 1900})
    assert second == Document("16367aacb67a4a01", "second", None, "web", {})


def test_folders_are_read_in_order_whatever_the_compression(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.jsonl.gz").write_bytes(gzip.compress(lines([{"text": "two"}])))
    frames = [zstandard.compress(lines([{"text": name}])) for name in ("three", "four")]
    (tmp_path / "c.ndjson.zst").write_bytes(b"".join(frames))
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines([{"text": "one"}]))
    (tmp_path / ".hidden.jsonl").write_bytes(b"not read")
    (tmp_path / "README.md").write_bytes(b"not read")
    assert [document.text for document in read("jsonl", tmp_path)] == ["one", "two", "three", "four"]
    assert [document.text for document in read("jsonl", tmp_path, limit=2)] == ["one", "two"]
    assert [document.text for document in read("jsonl", tmp_path / "b" / "2.jsonl.gz")] == ["two"]


def test_parquet_files_are_read_like_json_lines(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": "7", "more": 1}, {"text": "second", "meta": None, "more": 2}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = read("parquet", tmp_path)
    assert first == Document("7", "first ü", "https://a.example/x", "books", {"year": 1900})
    assert (second.text, second.domain, second.meta) == ("second", "web", {})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_columns_that_nothing_reads_are_said_once(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "dump": "CC-MAIN", "token_count": 3} for row in (ROWS[1], ROWS[1] | {"id": "x"})]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read(kind, tmp_path, limit=2)
    output = "".join(capsys.readouterr())
    assert output.count("columns not read: dump, token_count") == 1
    assert "text" not in output.rpartition("columns")[2]


def test_other_fields_can_hold_text_and_domain(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"body": "x", "kind": "a/b c", "meta": '{"group": "g"}'}]))
    (document,) = read("jsonl", tmp_path, text_field="body", domain_field="kind")
    assert (document.text, document.domain, document.meta) == ("x", "a-b-c", {"group": "g"})


def test_folders_of_text_are_domains(tmp_path: Path) -> None:
    for name, content in {
        "poems/1.txt": b"a rose",
        "poems/old/2": b"\xef\xbb\xbfa thorn",
        "top.md": "ไทย".encode(),
        "poems/picture.png": b"\x89PNG\0\0",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = open_source(SourceConfig(kind="text", path=str(tmp_path), domain="mine"))
    with workers(1) as pool:
        result = [(document.id, document.text, document.domain) for document in source.documents(pool)]
    assert result == [
        ("poems/1.txt", "a rose", "poems"),
        ("poems/old/2", "a thorn", "poems"),
        ("top.md", "ไทย", "mine"),
    ]
    assert source.facts()["not_text"] == ["poems/picture.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": ', r"line 2 is not JSON"),
        (b'["text"]', r"line 2 is not a JSON object"),
        (b'{"body": "x", "id": 1}', r"line 2 has no field 'text'; its fields are: body, id"),
        (b'{"text": null}', r"line 2: the field 'text' is null, not a text"),
        (b'{"text": ["a"]}', r"line 2: the field 'text' is a list, not a text"),
        (b'{"text": "\xe9"}', r"line 2 is not UTF-8: byte 11 of it is 0xe9"),
        (b"[" * 100_000, r"line 2 is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS[:1]) + line + b"\n")
    with pytest.raises(StageError, match=rf"a\.jsonl, {message}"):
        read("jsonl", tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    content = lines([{"text": f"{number**3}"} for number in range(5_000)])
    packed = gzip.compress(content) if suffix == ".gz" else zstandard.compress(content)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(StageError, match=rf"a\.jsonl{suffix} can't be decompressed after line \d+"):
        read("jsonl", tmp_path)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(b"no archive at all")
    with pytest.raises(StageError, match=rf"a\.jsonl{suffix} can't be decompressed after line 0"):
        read("jsonl", tmp_path)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(StageError, match=r"a\.parquet, row 1 has no field 'text'; its fields are: body, n"):
        read("parquet", tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageError, match=r"a\.parquet is damaged"):
        read("parquet", tmp_path)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\ntwo é".encode("latin-1"))
    with pytest.raises(StageError, match=r"a\.txt, line 2 is not UTF-8: byte 9 of the file is 0xe9\.\n"):
        read("text", tmp_path)


def test_other_texts_that_are_not_utf8_are_named_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("é", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\0\xe9")
    for number in range(7):
        (tmp_path / f"bad{number}.txt").write_bytes(b"\xe9")
    with pytest.raises(StageError, match=r"bad0\.txt, line 1 .* either: .*bad1\.txt, .*bad5\.txt and 1 more\."):
        read("text", tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text"])
def test_missing_and_empty_folders_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(StageError, match=r"nowhere does not exist"):
        read(kind, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"empty has no .* files .*; it has nothing"):
        read(kind, tmp_path / "empty")


def test_a_path_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"source\.path is needed"):
        check(SourceConfig(kind="jsonl"))


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.warc.zst").write_bytes(zstandard.compress(b"WARC/1.1\r\n"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(StageError, match=r"(?s)a\.warc\.zst .* zstandard.*maquette-lm\[curation\]"):
        read("warc", tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StageError, match=r"(?s)datasets.*maquette-lm\[curation\]"):
        read("huggingface", tmp_path)


def test_inputs_follow_names_and_contents_not_places(tmp_path: Path) -> None:
    def inputs(folder: Path) -> dict[str, str]:
        return open_source(SourceConfig(kind="jsonl", path=str(folder))).inputs()

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_bytes(lines(ROWS))
    before = inputs(tmp_path / "a")
    assert before == inputs(tmp_path / "b")
    (tmp_path / "b" / "x.jsonl").write_bytes(lines(ROWS[:1]))
    assert before != inputs(tmp_path / "b")
    (tmp_path / "a" / "y.jsonl").write_bytes(b"")
    assert before != inputs(tmp_path / "a")
