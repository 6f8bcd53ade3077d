"""`maquette pipelines`: the old and the new way to spend compute, carried out for real at equal compute.

`maquette plan pipeline=compare` shows the same on a fitted law. Every run is an ordinary one, below one parent in
MLflow; typing the line again goes on where it was.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.artifacts.targets import with_values
from maquette.reports import quantity, write_page
from maquette.scaling.plans.pipelines import (
    Trained,
    Trial,
    final_run,
    pipeline_facts,
    pipeline_figure,
    small_trials,
    tuning_trials,
)
from maquette.stages import train as train_stage
from maquette.stages.config import PipelinesStage, TrainStage
from maquette.stages.planning import resolve_recipe
from maquette.stages.tokens import TokensResult
from maquette.tracking import start_parent_run

DEFAULT_COMPUTE = "6e12"
"""Minutes on two cores."""


def run(config: PipelinesStage) -> Path:
    """Trains both ways, prints the verdict, and returns the artifact's folder with the page."""
    data = train_stage.make_tokens(config)
    compute = float(parse_quantity(config.compute or DEFAULT_COMPUTE, "compute"))
    settings = dataclasses.asdict(config)
    kept = {key: value for key, value in settings.items() if key not in ("outputs", "force", "logger", "trainer")}

    def make(folder: Path) -> dict[str, Any]:
        with _recorded(config, digest(kept)[:8]) as below:
            old, small, big, words = _both_ways(below, data, compute)
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


def _both_ways(
    config: PipelinesStage, data: TokensResult, compute: float
) -> tuple[list[Trained], list[Trained], Trained, str]:
    def buildable(size: float) -> bool:
        try:
            resolve_recipe(_of(config, Trial(size, compute)), data)
        except ConfigError:
            return False
        return True

    say(f"old way: {config.trials} runs of {compute / config.trials:.2g} FLOPs with settings that somebody might guess")
    old = _train(config, data, tuning_trials(compute, config.trials, config.seed, buildable))
    spent = sum(run.compute for run in old)
    say("new way: small models")
    small = _train(config, data, small_trials(spent, buildable))
    big = final_run(small, spent - sum(run.compute for run in small))
    say(f"new way: {big.words}; one run of {quantity(big.trial.size)} parameters")
    (trained,) = _train(config, data, [big.trial])
    return old, small, trained, big.words


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
    rows = Table(title="old and new way at equal compute", title_justify="left")
    for heading in ("way", "runs", "FLOPs in all", "final model", "loss"):
        rows.add_column(heading, justify="left" if heading == "way" else "right")
    for way, count, spent, final in (
        ("guess, keep the best", len(facts["old"]), facts["compute_old"], facts["best_old"]),
        ("small models, law, one big run", len(facts["small"]) + 1, facts["compute_new"], facts["big"]),
    ):
        model = f"{quantity(final['params'])} on {quantity(final['tokens'])} tokens"
        rows.add_row(way, str(count), f"{spent:.3g}", model, f"{final['loss']:.4f}")
    console = Console()
    console.print(rows)
    console.print(facts["verdict"], markup=False, highlight=False)
