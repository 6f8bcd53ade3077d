"""Token shards: what is written is what is read; anything damaged or foreign is refused by name."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import StageError
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.data import TokenShards
from maquette.data import shards as shards_module
from maquette.data.shards import TokenStream, folder_name, token_dtype
from support.shard_files import write_artifact

TEXTS = [list(range(1, 40)), list(range(100, 130)), [7], list(range(200, 290))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_artifact(tmp_path, {"code": {"train": TEXTS, "validation": TEXTS[:1]}}, shard_tokens=50)


def test_tokens_are_read_as_one_row_over_all_files(folder: Path) -> None:
    shards = TokenShards(folder)
    row = [token for text in TEXTS for token in (0, *text)]
    assert sorted(path.name for path in (folder / "code").glob("train-*.npy")) == [
        f"train-0000{number}.npy" for number in range(4)
    ]
    assert shards.tokens() == {"code": len(row)}
    assert shards.text_bytes() == {"code": 2 * sum(map(len, TEXTS))}
    for start, length in ((0, len(row)), (45, 10), (49, 1), (50, 0), (len(row), 0), (3, 120)):
        assert shards.read("code", "train", start, length).tolist() == row[start : start + length]
    with pytest.raises(IndexError):
        shards.read("code", "train", len(row), 1)


def test_documents_are_found_again(folder: Path) -> None:
    shards = TokenShards(folder)
    table = shards.documents("code")
    assert table.starts.tolist() == [0, 40, 71, 73]
    assert table.bytes.tolist() == [78, 60, 2, 180]
    assert shards.document_ids("code", "train", 30, 42) == ["code/train/0", "code/train/1", "code/train/2"]
    assert shards.document_ids("code", "train", 73, 1) == ["code/train/3"]


def test_ids_take_two_bytes_where_the_vocabulary_allows(tmp_path: Path) -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
    large = write_artifact(tmp_path, {"code": {"train": [[65_536, 99_999]]}}, vocab_size=100_000)
    assert np.load(large / "code" / "train-00000.npy").dtype == np.uint32
    assert TokenShards(large).read("code", "train", 0, 3).tolist() == [0, 65_536, 99_999]


def test_files_are_mapped_not_read(folder: Path) -> None:
    tokens = TokenShards(folder).read("code", "train", 0, 10)
    base = tokens
    while getattr(base, "base", None) is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not tokens.flags.writeable


def test_a_reading_process_gets_the_folder_not_the_tokens(folder: Path) -> None:
    shards = TokenShards(folder)
    shards.read("code", "train", 0, 10)
    packed = pickle.dumps(shards)
    assert len(packed) < 1000
    assert pickle.loads(packed).read("code", "train", 40, 60).tolist() == shards.read("code", "train", 40, 60).tolist()


def test_a_truncated_shard_is_refused(folder: Path) -> None:
    path = folder / "code" / "train-00001.npy"
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(StageError, match=re.escape(str(path)) + " has .* bytes"):
        TokenShards(folder)


def test_a_changed_byte_is_refused(folder: Path) -> None:
    path = folder / "code" / "train-00002.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StageError, match=re.escape(str(path)) + " does not match its checksum"):
        TokenShards(folder)


def test_a_missing_shard_is_refused(folder: Path) -> None:
    (folder / "code" / "train-00000.npy").unlink()
    with pytest.raises(StageError, match=r"train-00000.npy is missing"):
        TokenShards(folder)


def test_another_tokenizer_is_refused_by_name(folder: Path) -> None:
    assert TokenShards(folder, "f" * 64).tokenizer_digest == "f" * 64
    with pytest.raises(StageError, match=r"bpe-1024-12345678 \(ffffffff\), not with this one \(0123abcd\)"):
        TokenShards(folder, "0123abcd" * 8)


def test_another_artifact_is_refused(folder: Path) -> None:
    write_sealed(folder / "manifest.json", {**load_sealed(folder / "manifest.json"), "kind": "corpus"})
    with pytest.raises(StageError, match="holds corpus, not tokens"):
        TokenShards(folder)


def test_an_unknown_domain_is_named(folder: Path) -> None:
    with pytest.raises(StageError, match=r"no domain 'books'.*\n.*code"):
        TokenShards(folder).read("books", "train", 0, 1)


def test_a_large_artifact_is_hashed_once_and_again_when_a_file_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "REMEMBER_BYTES", 0)
    checked: list[int] = []
    verify = shards_module.verify_files

    def counting(folder: Path, manifest: shards_module.Manifest) -> shards_module.Manifest:
        checked.append(len(manifest.files))
        return verify(folder, manifest)

    monkeypatch.setattr(shards_module, "verify_files", counting)
    TokenShards(folder)
    TokenShards(folder)
    assert checked == [7]
    path = folder / "code" / "train-00002.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"train-00002.npy"):
        TokenShards(folder)
    assert checked == [7, 1]


def test_a_damaged_stamp_only_costs_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "REMEMBER_BYTES", 0)
    (folder / ".verified.json").write_text("{")
    assert TokenShards(folder).domains == ("code",)


@pytest.mark.parametrize("name", ["Web pages", "../up", "a/b", "", ".", "Code", "über"])
def test_domains_become_plain_folder_names(name: str, tmp_path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9._-]+-[0-9a-f]{8}", folder_name(name))
    made = write_artifact(tmp_path, {name: {"train": [[1, 2, 3]]}})
    assert TokenShards(made).read(name, "train", 0, 4).tolist() == [0, 1, 2, 3]
    assert [path.parent.parent for path in made.rglob("train-00000.npy")] == [made]


def test_plain_names_stay() -> None:
    assert folder_name("code") == "code"
    assert folder_name("c4.en-2024_01") == "c4.en-2024_01"
    assert folder_name("a b") != folder_name("a/b")


def test_pieces_of_a_stream_overlap() -> None:
    stream = TokenStream([np.arange(5, dtype=np.uint16), np.arange(5, 12, dtype=np.uint16)])
    assert [piece.tolist() for piece in stream.pieces(6, overlap=2)] == [
        [0, 1, 2, 3, 4, 5],
        [4, 5, 6, 7, 8, 9],
        [8, 9, 10, 11],
    ]
    assert list(TokenStream([]).pieces(6, overlap=2)) == []
    assert TokenStream([]).read(0, 0).tolist() == []


def test_a_split_without_documents_is_an_empty_row(tmp_path: Path) -> None:
    made = write_artifact(tmp_path, {"code": {"train": TEXTS, "test": []}})
    shards = TokenShards(made)
    assert shards.tokens("test") == {"code": 0}
    assert shards.tokens("validation") == {"code": 0}
    assert shards.read("code", "test", 0, 0).tolist() == []
    assert shards.documents("code", "test").ids == []


def test_seventy_thousand_shards_are_opened_and_few_are_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than Linux lets a process map. The manifest names the same four files again and again."""
    monkeypatch.setattr(shards_module, "MOST_MAPS", 50)
    entries = TokenShards(folder).manifest.facts["domains"]["code"]["splits"]["train"]["shards"]
    many = (entries * (70_000 // len(entries) + 1))[:70_000]
    stream = shards_module.open_stream(folder, {"shards": many})
    arrays = [np.load(folder / entry["file"]) for entry in entries]
    whole = np.concatenate([arrays[number % len(arrays)] for number in range(len(many))])
    assert len(stream) == len(whole)
    for start in np.random.default_rng(0).integers(0, len(whole) - 100, 500).tolist():
        assert np.array_equal(stream.read(start, 100), whole[start : start + 100])
    assert sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines()) <= 50


def test_ids_are_read_without_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a billion documents it is not read because of a loss spike."""
    writer = shards_module.ShardWriter(tmp_path / "code", "train", np.dtype(np.uint16), 0, 1 << 20)
    for number in range(25_000):  # row groups of 10,000
        writer.add(shards_module.EncodedDocument(f"d{number}", np.arange(number % 3, dtype=np.uint16), 1))
    entry = writer.close()
    shards = TokenShards(write_artifact(tmp_path / "made", {"code": {"train": TEXTS}}))
    shards._domains["code"]["splits"]["train"] = entry
    shards.folder = tmp_path
    table = shards.documents("code")
    spans = [(0, 1), (19_990, 40), (19_999, 2), (49_998, 1), (int(table.starts[10_000]) - 1, 2), (0, entry["tokens"])]
    expected = []
    for start, length in spans:
        first, last = np.searchsorted(table.starts, [start, start + length - 1], "right") - 1
        expected.append(table.ids[first : last + 1])
    monkeypatch.setattr(TokenShards, "documents", lambda *_: pytest.fail("the whole table was read"))
    assert [shards.document_ids("code", "train", *span) for span in spans] == expected
