import gzip
import random
import zlib
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document, Rejection
from maquette.corpus.sources.records import ArchivePart, archive_parts
from maquette.corpus.sources.warc import ArchiveShard, Warc, WebPage, read_page
from support.made_archives import archive, page, record

REAL = Path(__file__).parents[3] / "shared" / "data" / "warc"


def read(path: Path) -> list[Document | Rejection]:
    shard = ArchiveShard(str(path), path.name, 0, path.stat().st_size, "web", "resiliparse", 2_000_000)
    return list(shard.documents(lambda url: None, lambda number, place: True, lambda url: False))


def texts(documents: list[Document | Rejection]) -> list[str]:
    return [one.text for one in documents if isinstance(one, Document)]


def numbers(documents: list[Document | Rejection]) -> list[int]:
    return [int(text.split()[4]) for text in texts(documents)]


@pytest.mark.parametrize("kind", ["plain", "gzip", "one member", "zstandard", "zstandard with dictionary"])
def test_every_compression_gives_the_same_pages(tmp_path: Path, kind: str) -> None:
    import zstandard

    records = archive(20)
    path = tmp_path / "crawl.warc"
    if kind == "plain":
        path.write_bytes(b"".join(records))
    elif kind == "gzip":
        path.write_bytes(b"".join(map(gzip.compress, records)))
    elif kind == "one member":
        path.write_bytes(gzip.compress(b"".join(records)))
    elif kind == "zstandard":
        path.write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, records)))
    else:
        known = zstandard.ZstdCompressionDict(b"".join(records[:5]), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        frame = b"\x5d\x2a\x4d\x18" + len(known.as_bytes()).to_bytes(4, "little") + known.as_bytes()
        packed = zstandard.ZstdCompressor(dict_data=known)
        path.write_bytes(frame + b"".join(packed.compress(one) for one in records))
    assert numbers(read(path)) == list(range(20))


def test_shards_of_an_archive_share_it_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(b"".join(archive(30, compressed=True)))
    size = path.stat().st_size
    for step in (97, 1000, size):
        result = [
            piece for start in range(0, size, step) for piece in archive_parts(path, start, min(start + step, size))
        ]
        assert [piece.fault for piece in result] == [""] * 30


def test_a_cut_archive_loses_only_its_last_record(tmp_path: Path) -> None:
    for compressed in (False, True):
        path = tmp_path / f"cut-{compressed}.warc"
        whole = b"".join(archive(5, compressed=compressed))
        path.write_bytes(whole[:-40] if not compressed else whole[:-15])
        result = read(path)
        assert numbers(result) == [0, 1, 2, 3]
        assert [one.reason for one in result if isinstance(one, Rejection)] == ["record: truncated"]


def test_a_length_that_reaches_too_far_swallows_nothing(tmp_path: Path) -> None:
    records = archive(4)
    length = int(records[1].partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    records[1] = records[1].replace(b"Length: %d" % length, b"Length: %d" % (length + 300))
    path = tmp_path / "crawl.warc"
    path.write_bytes(b"".join(records))
    assert numbers(read(path)) == [0, 2, 3]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_thousand_mutations_never_crash_and_cost_no_good_record(tmp_path: Path, compressed: bool) -> None:
    chance = random.Random(7)
    records = archive(6, compressed=compressed)
    path = tmp_path / "crawl.warc"
    for _ in range(500):
        victim = chance.randrange(6)
        broken = bytearray(records[victim])
        kind = chance.randrange(4)
        place = chance.randrange(len(broken))
        if kind == 0:
            broken[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del broken[place : place + chance.randrange(1, 60)]
        elif kind == 2:
            broken[place:place] = chance.randbytes(chance.randrange(1, 60))
        else:
            broken[place:] = b""
        path.write_bytes(b"".join([*records[:victim], bytes(broken), *records[victim + 1 :]]))
        result = numbers(read_tolerantly(path))
        good = [number for number in range(6) if number != victim]
        assert [number for number in result if number in good] == good, (kind, place, victim)


def read_tolerantly(path: Path) -> list[Document | Rejection]:
    """Pages whose sentence is whole: the mutated one may have become anything."""
    return [
        one
        for one in read(path)
        if isinstance(one, Rejection) or (one.text.startswith("This is page number ") and one.text.split()[4].isdigit())
    ]


def test_a_bomb_is_refused_in_bounded_time_and_memory() -> None:
    bomb = gzip.compress(b"<html><p>x" + bytes(200 << 20), 1)
    result = read_page(ArchivePart(0, record(bomb, headers="Content-Encoding: gzip\r\n")), "a", 1_000_000)
    assert isinstance(result, Rejection)
    assert result.reason == "page: too large"


def test_a_record_that_inflates_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.corpus.sources import records as module

    monkeypatch.setattr(module, "LARGEST", 100_000)
    bomb = gzip.compress(record(bytes(1_000_000)))
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(b"".join([*archive(2, compressed=True), bomb, *archive(3, compressed=True)]))
    result = list(archive_parts(path))
    assert [piece.fault for piece in result] == ["", "", "too large", "", "", ""]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (page(1), ""),
        (b"%x\r\n%s\r\n0\r\n\r\n" % (len(page(1)), page(1)), "Transfer-Encoding: chunked\r\n"),
        (page(1), "Transfer-Encoding: chunked\r\n"),  # the crawler took it off and kept the header
        (gzip.compress(page(1), mtime=0), "Content-Encoding: gzip\r\n"),
        (zlib.compress(page(1)), "Content-Encoding: deflate\r\n"),
        (page(1), "Content-Encoding: gzip\r\n"),
    ],
)
def test_what_http_wrapped_is_unwrapped(body: bytes, headers: str) -> None:
    result = read_page(ArchivePart(0, record(body, headers=headers)), "a", 1_000_000)
    assert isinstance(result, WebPage)
    assert result.body == page(1)


def test_a_damaged_encoding_is_a_broken_record() -> None:
    for body, headers in (
        (b"fff\r\nshort", "Transfer-Encoding: chunked\r\n"),
        (b"\x1f\x8bnot gzip", "Content-Encoding: gzip\r\n"),
    ):
        result = read_page(ArchivePart(0, record(body, headers=headers)), "a", 1000)
        assert isinstance(result, Rejection)
        assert result.reason == "record: broken"


def test_what_is_no_page_is_passed_over_or_rejected() -> None:
    request = record(b"").replace(b"WARC-Type: response", b"WARC-Type: request")
    assert read_page(ArchivePart(0, request), "a", 1000) is None
    missing = record(page(1)).replace(b"200 OK", b"404 No")
    image = record(b"\x89PNG\0\0", kind="image/png")
    reasons = [read_page(ArchivePart(0, one), "a", 1000) for one in (missing, image)]
    assert [one.reason for one in reasons if isinstance(one, Rejection)] == ["answer: not 200", "answer: not a text"]


def test_text_that_a_crawler_extracted_is_read(tmp_path: Path) -> None:
    text = "A line of text.\nAnd another one: ünïcode.".encode()
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: text/plain\r\n"
    head += f"Content-Length: {len(text)}\r\n\r\n"
    path = tmp_path / "crawl.warc.wet.gz"
    path.write_bytes(gzip.compress(head.encode() + text + b"\r\n\r\n"))
    result = Warc(SourceConfig(kind="warc", path=str(tmp_path)))
    assert [shard.name for shard in result.shards()] == ["crawl.warc.wet.gz"]
    assert texts(read(path)) == [text.decode()]


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(StageError, match="no crawl archive files"):
        Warc(SourceConfig(kind="warc", path=str(tmp_path)))


@pytest.mark.skipif(not REAL.exists(), reason="the real archives are not here")
def test_real_archives_give_their_pages() -> None:
    result = {path.name: read(path) for path in sorted(REAL.glob("*.warc*"))}
    example = [name for name, pages in result.items() if any("Example Domain" in text for text in texts(pages))]
    assert example == [
        "example-bad-non-chunked.warc.gz", "example-resource.warc.gz", "example-wget-bad-target-uri.warc.gz",
        "example-wrong-chunks.warc.gz", "example.warc", "example.warc.gz",
    ]  # fmt: skip
    assert texts(result["example-iana.org-chunked.warc"])[0].startswith("Internet Assigned Numbers Authority")
    assert [one.reason for one in result["example-trunc.warc"] if isinstance(one, Rejection)] == ["record: broken"]
