import json
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers
from maquette.data.config import InstructionFilesConfig, PreferenceFilesConfig
from maquette.data.conversations import ExampleFiles

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


def test_columns_that_are_not_read_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": "x", "stars": 3, "license": "mit"}) + "\n")
    read(SourceConfig(kind="huggingface", path=str(folder), split="test", limit=1))
    assert f"{folder}, split test: columns not read: license, stars" in capsys.readouterr().err


CHAT = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}]


def test_examples_of_a_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From files through `load_dataset`, and from what `save_to_disk` wrote, one split or several."""
    import datasets

    for split in ("train", "test"):
        rows = [{"messages": CHAT, "source": f"{split} {number}"} for number in range(2)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    several = datasets.DatasetDict({"test": datasets.Dataset.from_list([{"messages": CHAT, "source": "s"}])})
    several.save_to_disk(str(folder.parent / "several"))
    several["test"].save_to_disk(str(folder.parent / "one"))
    for path, split in ((folder, "test"), (folder.parent / "several", "test"), (folder.parent / "one", "train")):
        config = InstructionFilesConfig(kind="huggingface", path=str(path), split=split)
        source = ExampleFiles(config.open_rows("instructions"), "instructions")
        one, *_ = source.examples()
        assert (one.messages, one.place) == (CHAT, f"{path}, split {split}, row 1")
        assert f"split {split}: columns not read: source" in capsys.readouterr().err
    with pytest.raises(StageError, match=r"split dev can't be read: Unknown split 'dev'. It has test."):
        rows_of = PreferenceFilesConfig(path=str(folder.parent / "several"), split="dev").open_rows("preferences")
        list(ExampleFiles(rows_of, "preferences").examples())
    (folder / "test.jsonl").write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps({"messages": None}) + "\n")
    config = InstructionFilesConfig(path=str(folder), split="test")
    with pytest.raises(StageError, match=f"{folder}, split test, row 2: messages must be a list"):
        list(ExampleFiles(config.open_rows("instructions"), "instructions").examples())
