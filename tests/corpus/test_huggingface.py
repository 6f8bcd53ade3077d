import json
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers

pytestmark = pytest.mark.slow(reason="importing datasets alone takes seconds")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        rows = [{"text": f"{split} {number}", "url": f"https://{number}.example"} for number in range(5)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def read(config: SourceConfig) -> list[Document]:
    with workers(1) as pool:
        return list(open_source(config).documents(pool))


def test_a_local_data_set_is_streamed(folder: Path) -> None:
    result = read(SourceConfig(kind="huggingface", path=str(folder), split="test", limit=3))
    assert [(document.text, document.url) for document in result] == [
        (f"test {number}", f"https://{number}.example") for number in range(3)
    ]


def test_changed_local_data_is_noticed(folder: Path) -> None:
    source = open_source(SourceConfig(kind="huggingface", path=str(folder)))
    before = source.inputs()
    (folder / "train.jsonl").write_text('{"text": "new"}\n')
    assert source.inputs() != before


def test_a_wrong_split_and_a_wrong_field_are_named(folder: Path) -> None:
    with pytest.raises(StageError, match="split dev can't be read"):
        read(SourceConfig(kind="huggingface", path=str(folder), split="dev"))
    with pytest.raises(StageError, match="row 1 has no field 'body'; its fields are: text, url"):
        read(SourceConfig(kind="huggingface", path=str(folder), text_field="body"))
