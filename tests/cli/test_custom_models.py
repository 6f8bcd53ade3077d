"""A user's architecture, activation and attention layer in `maquette train`: trained, resumed, swept, exported."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.test_multirun import ISOFLOP, SMALL
from maquette.artifacts import ConfigError
from maquette.cli import export, train
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import ExportStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.sweeps.jobs import plan
from maquette.model.config import ModelConfig
from maquette.model.loading import load_checkpoint
from support.small_runs import settings, write_documents

pytestmark = pytest.mark.usefixtures("no_pictures")

SOURCE = Path(__file__).parents[1] / "support" / "their_models.py"
OWN_CORE = {"model": ModelConfig(kind="my_architecture.averages")}
OWN_PARTS = {
    "model": ModelConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        activation="my_architecture.Snake", attention="my_architecture.PlainAttention",
    )
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, with a module of theirs and documents."""
    (tmp_path / "my_architecture.py").write_text(SOURCE.read_text())
    (tmp_path / "documents").mkdir()
    write_documents(tmp_path / "documents")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_architecture", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


@pytest.mark.parametrize("changes", [OWN_CORE, OWN_PARTS], ids=["core", "parts"])
def test_it_trains_counts_samples_and_exports(
    package: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record = train.run(settings(Path("outputs"), package / "documents", **changes))
    assert record.validation_loss is not None and record.validation_loss < 5.4 and record.samples[0]["text"]
    model, _ = load_checkpoint(record.folder)
    assert record.spec.size == sum(
        parameter.numel() for name, parameter in model.named_parameters() if "embedding" not in name
    )
    assert record.spec.compute > 6 * record.spec.parameters.head * record.spec.tokens
    folder = export.run(ExportStage(checkpoint=record.folder))
    stderr = capsys.readouterr().err
    for name in model.config.own_code:
        assert name in record.spec.architecture_kind
        assert name in stderr and name in (folder / "README.md").read_text()


@pytest.mark.slow(reason="trains four models")
@pytest.mark.parametrize("changes", [OWN_CORE, OWN_PARTS], ids=["core", "parts"])
def test_the_same_line_is_the_same_run_and_an_edit_another(package: Path, changes: dict[str, Any]) -> None:
    def run(outputs: str) -> Any:
        return train.run(settings(Path(outputs), package / "documents", **changes))

    first, again, elsewhere = run("outputs"), run("outputs"), run("elsewhere")
    assert first == again and first.name == elsewhere.name
    one, other = (load_file(Path(record.folder) / "model" / "model.safetensors") for record in (first, elsewhere))
    assert all(torch.equal(one[name], other[name]) for name in one)
    (package / "my_architecture.py").write_text(SOURCE.read_text() + "\n# edited\n")
    assert run("outputs").name != first.name


@pytest.mark.slow(reason="finds the sizes of two architectures")
def test_it_takes_part_in_a_sweep_beside_ours(package: Path) -> None:
    overrides = [
        *ISOFLOP,
        "model.kind=my_architecture.averages,transformer",
        *SMALL,
        f"source.path={package / 'documents'}",
    ]
    sweep = plan(STAGES["train"], overrides)
    kinds = [job.forecast.kind for job in sweep.jobs if job.forecast]
    assert sorted(kinds) == ["my_architecture.averages"] * 3 + ["transformer, swiglu"] * 3
    for job in sweep.jobs:
        assert job.forecast is not None and job.forecast.compute == pytest.approx(2e8, rel=0.1)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.activation=swiglue"], ["swiglu", "package.module.Name"]),
        (["model.activation=my_architecture.Snakes"], ["Snake"]),
        (["model.attention=my_architectur.PlainAttention"], ["my_architecture"]),
        (["model.attention=linear"], ["model.attention=linear"]),
        (["model.kind=my_architecture.average"], ["averages"]),
        (["model.kind=my_architecture.averages", "model.hidden_size=8"], ["model.hidden_size"]),
    ],
)
def test_what_is_not_there_is_a_wrong_setting_when_the_line_is_read(
    package: Path, overrides: list[str], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(STAGES["train"], overrides)
    for name in named:
        assert name in str(caught.value)


def test_the_recipe_of_transfer_between_widths_is_not_for_a_users_core(package: Path) -> None:
    config = settings(Path("outputs"), package / "documents", **OWN_CORE)
    config.recipe.kind = "mup"
    with pytest.raises(ConfigError, match=r"recipe=mup"):
        train.run(config)
