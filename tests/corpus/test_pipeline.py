import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.corpus import SPLITS, Document, make_corpus, read_documents
from maquette.corpus.config import CorpusConfig, SourceConfig
from maquette.corpus.pipeline import CLEAN, replace_validation
from maquette.corpus.sources.installed import Installed
from maquette.corpus.workers import batches, workers

WINDOW = 24

Facts = dict[str, Any]


def build(folder: Path, documents: list[Document], config: CorpusConfig | None = None, count: int = 1) -> Facts:
    folder.mkdir(parents=True)
    with workers(count) as pool:
        return make_corpus(iter(documents), config or CorpusConfig(), folder, pool)


@pytest.fixture(scope="module")
def real() -> list[Document]:
    """A little of the installed source: text that repeats itself as real text does."""
    source = Installed(SourceConfig(), ("fsspec", "PyYAML", "joblib"), standard_library=False)
    with workers(1) as pool:
        return list(source.documents(pool))


@pytest.fixture(scope="module")
def made(real: list[Document], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    folder = tmp_path_factory.mktemp("corpus") / "made"
    return folder, build(folder, real)


def runs(documents: Iterator[Document]) -> Iterator[tuple[str, ...]]:
    """Every run of 24 words and marks, found without any of the code under test."""
    for document in documents:
        tokens = re.findall(r"\w+|[^\w\s]", document.text)
        yield from (tuple(tokens[first : first + WINDOW]) for first in range(len(tokens) - WINDOW + 1))


def test_no_run_of_24_stands_twice_in_training_or_in_two_splits(made: tuple[Path, Facts]) -> None:
    seen: set[tuple[str, ...]] = set()
    for split in SPLITS:
        result = list(runs(read_documents(made[0], split)))
        assert result
        assert len(set(result)) == len(result)
        assert seen.isdisjoint(result)
        seen.update(result)


def test_before_it_did_repeat_itself_and_after_it_does_not(made: tuple[Path, Facts], real: list[Document]) -> None:
    assert len(set(runs(iter(real)))) < len(list(runs(iter(real))))
    rates = made[1]["repetition"]
    assert rates["before"]["code"]["train"] > 0.02
    assert rates["before"]["docs"]["train"] > 0.02
    for splits in rates["after"].values():
        assert all(share == 0 for share in splits.values())


def test_a_group_is_in_one_split(made: tuple[Path, Facts]) -> None:
    for domain in ("code", "docs"):
        groups = [{document.meta["group"] for document in read_documents(made[0], split, domain)} for split in SPLITS]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_the_summary_counts_what_is_in_the_files(made: tuple[Path, Facts]) -> None:
    folder, summary = made
    for split in SPLITS:
        names = []
        for domain, counts in summary["domains"].items():
            texts = [document.text for document in read_documents(folder, split, domain)]
            names += [domain] * len(texts)
            assert len(texts) == counts[split]["documents"]
            assert sum(len(text.encode()) for text in texts) == counts[split]["bytes"]
        assert [document.domain for document in read_documents(folder, split)] == names
    assert not (folder / "spool").exists()


def test_every_step_leaves_no_more_than_the_one_before(made: tuple[Path, Facts]) -> None:
    funnel = made[1]["funnel"]
    assert [step["step"] for step in funnel][:2] == ["read", "duplicate documents"]
    for domain in made[1]["domains"]:
        sizes = [step["characters"][domain] for step in funnel]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] > 0


def test_what_is_kept_stands_in_the_original(made: tuple[Path, Facts], real: list[Document]) -> None:
    originals = {document.id: document.text for document in real}
    for split in SPLITS:
        for document in read_documents(made[0], split, "docs"):
            lines = [line.rstrip() for line in originals[document.id.partition("#")[0]].splitlines()]
            place = 0
            for line in filter(None, document.text.splitlines()):
                place = lines.index(line, place) + 1  # every line, in order


def test_the_same_bytes_whatever_the_number_of_workers(made: tuple[Path, Facts], real: list[Document]) -> None:
    folder, summary = made
    again = folder.with_name("again")
    assert build(again, real, count=2) == summary
    for split in SPLITS:
        assert (again / f"{split}.parquet").read_bytes() == (folder / f"{split}.parquet").read_bytes()


def prose(seed: int, count: int) -> str:
    numbers = random.Random(seed)
    return " ".join(f"w{numbers.randrange(10**5, 10**6)}" for _ in range(count))


def test_one_long_text_is_split_by_position(tmp_path: Path) -> None:
    paragraphs = [prose(number, 40) for number in range(100)]
    config = CorpusConfig(validation=0.1, test=0.05, held_out_characters=0)
    build(tmp_path / "a", [Document("book", "\n\n".join(paragraphs))], config)
    texts = [next(read_documents(tmp_path / "a", split)) for split in SPLITS]
    assert "\n\n".join(document.text for document in texts) == "\n\n".join(paragraphs)
    assert [document.id for document in texts] == ["book", "book#2", "book#3"]
    assert [len(document.text.split("\n\n")) for document in texts] == [85, 10, 5]


def test_text_that_needs_nothing_stays_as_it_is(tmp_path: Path) -> None:
    documents = [
        Document(str(number), f"# {prose(number, 30)}\n\n\n    {prose(number + 100, 30)}") for number in range(9)
    ]
    build(tmp_path / "a", documents)
    result = [document for split in SPLITS for document in read_documents(tmp_path / "a", split)]
    assert sorted(document.text for document in result) == sorted(document.text for document in documents)


def test_rejections_are_counted(tmp_path: Path) -> None:
    documents = [Document(str(number), prose(number, 30)) for number in range(5)]
    summary = build(tmp_path / "a", [*documents, Document("x", "short", None, "b"), Document("y", "", None, "b")])
    assert summary["rejected"] == {"too short": {"b": 2}}
    assert list(summary["domains"]) == ["web"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "The source holds no documents"),
        ([Document("1", "short"), Document("2", "")], r"Nothing of the source is left to train on \(2 too short\)"),
        ([Document("1", "0 " * 500)], r"Nothing .* left .* \(all of it repeats itself\)"),
    ],
)
def test_an_empty_corpus_is_one_clear_error(tmp_path: Path, documents: list[Document], message: str) -> None:
    with pytest.raises(StageError, match=message):
        build(tmp_path / "a", documents)


def test_batches_hold_everything_in_order() -> None:
    assert list(batches([3, 1, 1, 5, 1], lambda item: item, 4)) == [[3, 1], [1, 5], [1]]


def _double(number: int) -> int:
    if number == 7:
        raise StageError("seven")
    return 2 * number


def _die(number: int) -> int:
    import os

    os._exit(1)


def test_workers_keep_order_hand_on_errors_and_may_die() -> None:
    with workers(2) as pool:
        assert list(pool.map(_double, range(7))) == [0, 2, 4, 6, 8, 10, 12]
        with pytest.raises(StageError, match="seven"):
            list(pool.map(_double, range(20)))
    with pytest.raises(StageError, match="worker process died"), workers(2) as pool:
        list(pool.map(_die, range(3)))


def test_clean_documents_take_the_place_of_a_validation_split(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "One clean text.  \r\n", "domain": "books"}, {"id": "b", "text": "   "}]
    path = tmp_path / "clean.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "corpus").mkdir()
    assert replace_validation(path, tmp_path / "corpus") == {"documents": 1, "bytes": 15}
    result = list(read_documents(tmp_path / "corpus", "validation", CLEAN))
    assert [document.text for document in result] == ["One clean text."]


def test_what_can_not_be_validated_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"corpus\.validation_source|missing"):
        replace_validation(tmp_path / "missing.jsonl", tmp_path)
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(StageError, match="no documents"):
        replace_validation(tmp_path / "empty.jsonl", tmp_path)
