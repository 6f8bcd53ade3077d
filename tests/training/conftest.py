"""A small corpus on disk, already encoded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from maquette.cli import tokens
from maquette.cli.command_line.config import TrainStage
from support.small_runs import settings, write_documents


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Outputs with corpus, tokenizer and tokens, and the folder of documents they are from."""
    root = tmp_path_factory.mktemp("training")
    source = root / "documents"
    source.mkdir()
    write_documents(source)
    tokens.run(settings(root / "outputs", source))
    return root / "outputs", source


@pytest.fixture
def configure(prepared: tuple[Path, Path]) -> Callable[..., TrainStage]:
    """`configure(data__sequence_length=64, ...)`: the settings with changes. A seed of its own makes a run "
    "of its own."""
    outputs, source = prepared
    return lambda **changes: settings(outputs, source, **changes)
