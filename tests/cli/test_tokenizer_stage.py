"""`maquette tokenizer`, in process, on a small corpus."""

import dataclasses
from pathlib import Path

import pytest

from maquette.artifacts import StageError
from maquette.artifacts.manifest import build, read_manifest, verify_files
from maquette.cli import tokenizer as stage
from maquette.cli.command_line.config import TokenizerStage
from maquette.corpus import Document
from maquette.corpus.document import write_documents
from maquette.text import Tokenizer, report_figures
from maquette.text.config import TokenizerConfig

TEXTS = {
    "code": "def double(x):\n    if x > 327:\n        return 2 * x\n",
    "docs": "The mouse ate the cheese, and the cheese was good.\n",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenizerStage:
    """Settings of a stage whose corpus is made from TEXTS; no text where `source.limit` is 1, only training where 2."""

    def make_corpus(config: TokenizerStage) -> Path:
        def make(folder: Path) -> dict[str, object]:
            for split in ("train", "validation", "test"):
                documents = [
                    Document(f"{domain}-{split}", text * 20, None, domain)
                    for domain, text in TEXTS.items()
                    if config.source.limit is None or (config.source.limit == 2 and split == "train")
                ]
                write_documents(folder / f"{split}.parquet", documents)
            return {}

        assert not config.force
        root, settings = Path(config.outputs) / "artifacts", {"limit": config.source.limit}
        return build("corpus", root, name=None, label="small", config=settings, inputs={}, make=make)

    monkeypatch.setattr(stage.corpus, "run", make_corpus)
    monkeypatch.setattr(report_figures, "save_figure", lambda figure, path: path)  # drawn in tests/text/test_report.py
    return TokenizerStage(outputs=str(tmp_path), tokenizer=TokenizerConfig(vocab_size=300))


def test_artifact(config: TokenizerStage) -> None:
    folder = stage.run(config)
    tokenizer = Tokenizer.load(folder)
    manifest = verify_files(folder)
    assert folder.name.startswith("bpe-300-")
    assert manifest.facts["digest"] == tokenizer.digest
    assert manifest.facts["vocabulary"] == tokenizer.vocab_size == 300
    assert manifest.facts["kind"] == "bpe" and manifest.facts["measured_on"] == "validation"
    assert set(manifest.facts["domains"]) == set(TEXTS)
    assert manifest.inputs == {"corpus": read_manifest(stage.corpus.run(config)).digest}
    assert {"tokenizer.json", "tokenizer_config.json", "report.md", "report.json"} <= set(manifest.files)
    for text in TEXTS.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_second_time_does_nothing_and_force_makes_the_same(
    config: TokenizerStage, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage.run(config)
    made = (folder / "manifest.json").stat().st_mtime_ns
    assert stage.run(config) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    assert "up to date" in capsys.readouterr().err
    before = read_manifest(folder).facts["digest"]
    assert stage.run(dataclasses.replace(config, force=True)) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns > made
    assert read_manifest(folder).facts["digest"] == before


def test_other_settings_make_another_artifact(config: TokenizerStage, capsys: pytest.CaptureFixture[str]) -> None:
    byte = stage.run(dataclasses.replace(config, tokenizer=TokenizerConfig(kind="byte", digits=1)))
    assert "tokenizer.digits has no effect" in capsys.readouterr().err
    assert stage.run(dataclasses.replace(config, tokenizer=TokenizerConfig(kind="byte"))) == byte
    assert stage.run(dataclasses.replace(config, tokenizer=TokenizerConfig(kind="char", vocab_size=300))) != byte


def test_an_empty_corpus_is_one_clear_error(config: TokenizerStage) -> None:
    config.source.limit = 1
    for kind in ("bpe", "byte"):
        config.tokenizer.kind = kind
        with pytest.raises(StageError, match="has no training text"):
            stage.run(config)
    assert not list(Path(config.outputs).glob("artifacts/tokenizer/[!.]*"))


def test_a_corpus_without_validation_is_measured_on_training_text(config: TokenizerStage) -> None:
    config.source.limit = 2
    assert read_manifest(stage.run(config)).facts["measured_on"] == "train"
