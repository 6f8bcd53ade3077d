"""`maquette pipelines`: the old and the new way to spend compute, carried out for real at equal compute.

`maquette plan pipeline=compare` shows the same on a fitted law. Every run is an ordinary one, below one parent in
MLflow; run the command again to resume.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import with_values
from maquette.cli import tokens as tokens_stage
from maquette.cli import train as train_stage
from maquette.cli.command_line.config import PipelinesStage, TrainStage
from maquette.cli.planning.pretraining import resolve_recipe
from maquette.cli.tokens import TokensResult
from maquette.reports import terminal_table, write_page
from maquette.scaling.plans.pipelines import (
    Trained,
    Trial,
    both_ways,
    pipeline_facts,
    pipeline_figure,
)
from maquette.tracking import start_parent_run

DEFAULT_COMPUTE = "6e12"
"""Minutes on two cores."""


def run(config: PipelinesStage) -> Path:
    """Trains both ways, prints the verdict, and returns the artifact's folder with the page."""
    data = tokens_stage.make_tokens(config)
    compute = float(parse_quantity(config.compute or DEFAULT_COMPUTE, "compute"))
    settings = dataclasses.asdict(config)
    kept = {key: value for key, value in settings.items() if key not in ("outputs", "force", "logger", "trainer")}

    def make(folder: Path) -> dict[str, Any]:
        with _recorded(config, digest(kept)[:8]) as below:
            old, small, big, words = both_ways(
                functools.partial(_train, below, data), functools.partial(_buildable, config, data, compute), compute,
                trials=config.trials, seed=config.seed, say=say,
            )  # fmt: skip
        facts = pipeline_facts(old, small, big, words)
        write_json(folder / "verdict.json", facts)
        write_page(folder, "pipelines.html.j2", facts, {"pipelines": pipeline_figure(old, small, big)})
        return {"verdict": facts["verdict"], "winner": facts["winner"]}

    folder = build(
        "pipelines", Path(config.outputs), name=None, label=f"{compute:.0e}".replace("+", ""),
        config=kept, inputs={"tokens": digest(str(data.folder.name))}, make=make, force=config.force, say=say,
    )  # fmt: skip
    _tell(json.loads((folder / "verdict.json").read_text(encoding="utf-8")))
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return folder


def _train(config: PipelinesStage, data: TokensResult, trials: Sequence[Trial]) -> list[Trained]:
    found = []
    for trial in trials:
        settings = _of(config, trial)
        rate = trial.rate_factor * resolve_recipe(settings, data).learning_rate
        settings = dataclasses.replace(settings, optimizer=with_values(config.optimizer, lr=rate))
        record = train_stage.run(settings, data)
        if record.validation_loss is None:
            raise ConfigError("There is no text to validate on: nothing can be compared.", "Set corpus.validation.")
        found.append(
            Trained(
                trial, record.name, float(record.spec.size), float(record.spec.tokens), float(record.spec.compute),
                record.validation_loss,
            )
        )  # fmt: skip
    return found


def _buildable(config: PipelinesStage, data: TokensResult, compute: float, size: float) -> bool:
    """Whether there is a model of about this size."""
    try:
        resolve_recipe(_of(config, Trial(size, compute)), data)
    except ConfigError:
        return False
    return True


def _of(config: PipelinesStage, trial: Trial) -> TrainStage:
    """A trial as the settings of an ordinary run."""
    names = {field.name for field in dataclasses.fields(TrainStage)}
    chosen = {name: getattr(config, name) for name in names}
    size, compute = f"{trial.size:.0f}", f"{trial.compute:.0f}"
    return TrainStage(**(chosen | {"size": size, "compute": compute, "tokens": None, "force": False}))


@contextmanager
def _recorded(config: PipelinesStage, name: str) -> Iterator[PipelinesStage]:
    """The settings with every run below one parent in MLflow."""
    if not config.tracking.enabled:
        yield config
        return
    folder = Path(config.outputs) / "pipelines" / name
    with start_parent_run(
        config.tracking,
        outputs=config.outputs,
        name=f"pipelines-{name}",
        folder=folder,
        params={"trials": config.trials},
    ) as log:
        yield config.tracked(dataclasses.replace(config.tracking, parent=log.run_id))


def _tell(facts: dict[str, Any]) -> None:
    rows = [
        ("guess, keep the best", len(facts["old"]), facts["compute_old"], facts["best_old"]),
        ("small models, law, one big run", len(facts["small"]) + 1, facts["compute_new"], facts["big"]),
    ]
    columns = {
        "way": "{0}", "runs": "{1}", "FLOPs in all": "{2:.3g}",
        "final model": "{3.params:quantity} on {3.tokens:quantity} tokens", "loss": "{3.loss:.4f}",
    }  # fmt: skip
    console = Console()
    console.print(terminal_table(columns, rows, "old and new way at equal compute"))
    console.print(facts["verdict"], markup=False, highlight=False)
