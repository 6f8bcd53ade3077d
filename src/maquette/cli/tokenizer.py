"""`maquette tokenizer`: trains a tokenizer on the corpus and reports how it fits held-out text."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.manifest import build, read_manifest, verify_files
from maquette.artifacts.progress import say
from maquette.cli import corpus
from maquette.cli.command_line.config import TokenizerStage
from maquette.corpus import domains, read_documents
from maquette.text import effective_settings
from maquette.text.config import idle_settings
from maquette.text.report import train_and_report


def run(config: TokenizerStage) -> Path:
    """Trains the tokenizer of `config` on its corpus, which is made first where it is missing; see `train`."""
    return train(config, corpus.run(dataclasses.replace(config, force=False)))


def train(config: TokenizerStage, documents: Path) -> Path:
    """The folder of the tokenizer artifact: tokenizer.json, tokenizer_config.json, report.md, report.json, figures/.

    `documents` is the corpus artifact. `force` makes the tokenizer again, not the corpus. Raises `StageError` where the
    corpus has no text.
    """
    settings = config.tokenizer
    for name in idle_settings(settings):
        say(f"tokenizer.{name} has no effect on this kind of tokenizer")

    def make(folder: Path) -> dict[str, Any]:
        verify_files(documents)
        if not domains(documents, "train"):
            raise StageError(
                f"The corpus {documents} has no training text.", "Look at its report: the source, or what was dropped."
            )
        measured_on = "validation" if domains(documents, "validation") else "train"
        held_out = {domain: _texts(documents, measured_on, domain) for domain in domains(documents, measured_on)}
        return train_and_report(folder, settings, _texts(documents, "train"), held_out, measured_on)

    return build(
        "tokenizer",
        Path(config.outputs) / "artifacts",
        name=settings.name,
        key="tokenizer.name",
        label="byte" if settings.kind == "byte" else f"{settings.kind}-{settings.vocab_size}",
        config=effective_settings(settings),
        inputs={"corpus": read_manifest(documents).digest},
        make=make,
        force=config.force,
        say=say,
    )


def _texts(folder: Path, split: str, domain: str | None = None) -> Iterator[str]:
    return (document.text for document in read_documents(folder, split, domain))
