"""`maquette tokens`, in process, on a small corpus and a byte tokenizer."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maquette.artifacts.manifest import build, read_manifest, verify_files
from maquette.cli import tokens as stage
from maquette.cli.command_line.config import TokensStage
from maquette.corpus import Document
from maquette.corpus.document import write_documents
from maquette.data import MixtureOrder, TokenShards
from maquette.data.config import MixtureConfig, ShardsConfig
from maquette.data.token_artifacts import encoded
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

TEXT = "The mouse ate the cheese, and the cheese was good.\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokensStage:
    """Settings of a stage whose corpus is made of `source.domain` copies of TEXT, and whose tokenizer knows bytes."""

    def make_corpus(config: TokensStage) -> Path:
        def make(folder: Path) -> dict[str, object]:
            copies = int(config.source.domain)
            write_documents(
                folder / "train.parquet", [Document(str(n), f"{n}: {TEXT}", None, "docs") for n in range(copies)]
            )
            write_documents(folder / "validation.parquet", [Document("held out", "x" * 100, None, "docs")])
            write_documents(folder / "test.parquet", [])
            return {}

        assert not config.force
        root, settings = Path(config.outputs) / "artifacts", {"copies": config.source.domain}
        return build("corpus", root, name=None, label="small", config=settings, inputs={}, make=make)

    def make_tokenizer(config: TokensStage, documents: Path) -> Path:
        def make(folder: Path) -> dict[str, object]:
            added = [config.source.subset] if config.source.subset else []
            train_tokenizer([], TokenizerConfig(kind="byte")).add_tokens(added).save(folder)
            return {}

        assert not config.force
        root, settings = Path(config.outputs) / "artifacts", {"added": config.source.subset}
        return build("tokenizer", root, name=None, label="byte", config=settings, inputs={}, make=make)

    monkeypatch.setattr(stage.corpus_stage, "run", make_corpus)
    monkeypatch.setattr(stage.tokenizer_stage, "train", make_tokenizer)
    config = TokensStage(outputs=str(tmp_path))
    config.source.domain = "20"
    return config


def _changed(config: TokensStage, **source: str) -> TokensStage:
    return dataclasses.replace(config, source=dataclasses.replace(config.source, **source))


def test_artifact(config: TokensStage, capsys: pytest.CaptureFixture[str]) -> None:
    made = stage.run(config)
    manifest = verify_files(made.folder)
    assert made.folder.parent == Path(config.outputs) / "artifacts" / "tokens"
    assert made.folder.name.startswith("byte-")
    assert manifest.facts["tokenizer"]["name"] == made.tokenizer.name
    assert manifest.inputs["corpus"] == read_manifest(made.corpus).digest
    shards = TokenShards(made.folder, Tokenizer.load(made.tokenizer).digest)
    assert shards.text_bytes()["docs"] == sum(len(f"{n}: {TEXT}") for n in range(20))
    assert shards.tokens("validation")["docs"] == 101
    assert "docs: 1," in capsys.readouterr().err
    order = MixtureOrder(MixtureConfig(), shards.tokens(), context=32, token_budget=1000, seed=0)
    assert order.domains[order.locate([0]).domains[0]] == "docs"


def test_made_once_and_again_when_told_or_when_anything_differs(config: TokensStage) -> None:
    first = stage.run(config)
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    assert stage.run(config) == first
    assert stage.run(dataclasses.replace(config, shards=ShardsConfig(workers=1))) == first
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp
    again = stage.run(dataclasses.replace(config, force=True))
    assert again == first
    assert (first.folder / "manifest.json").stat().st_mtime_ns != stamp
    others = [
        stage.run(_changed(config, domain="21")),
        stage.run(_changed(config, subset="mouse")),
        stage.run(dataclasses.replace(config, shards=ShardsConfig(held_out_window=0))),
    ]
    assert len({first.folder, *(other.folder for other in others)}) == 4


def test_a_tokenizer_from_elsewhere_encodes_too(config: TokensStage, tmp_path: Path) -> None:
    made = stage.run(config)
    folder = tmp_path / "foreign"
    Tokenizer.load(made.tokenizer).add_tokens(["cheese"]).save(folder)
    assert made.corpus is not None
    result = encoded(made.corpus, folder, config.shards, config.outputs)
    assert result.folder.name.startswith("foreign-")
    shards = TokenShards(result.folder)
    assert shards.tokens()["docs"] < TokenShards(made.folder).tokens()["docs"]
    assert shards.text_bytes() == TokenShards(made.folder).text_bytes()


@pytest.mark.slow(reason="kills a process that encodes")
def test_killed_while_encoding_nothing_half_made_is_left(config: TokensStage, tmp_path: Path) -> None:
    made = stage.run(_changed(config, domain="30000"))
    program = (
        "from pathlib import Path; from maquette.data.token_artifacts import encoded\n"
        "from maquette.data.config import ShardsConfig\n"
        f"encoded(Path({str(made.corpus)!r}), Path({str(made.tokenizer)!r}), ShardsConfig(), "
        f"{str(tmp_path / 'killed')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    target = tmp_path / "killed" / "artifacts" / "tokens"
    while not list(target.glob(".*.partial/docs")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(target.glob("*/manifest.json"))
    assert made.corpus is not None
    again = encoded(made.corpus, made.tokenizer, config.shards, tmp_path / "killed")
    assert TokenShards(again.folder).digest == TokenShards(made.folder).digest
