"""`-m`: one run for each combination of the values given, through Hydra's sweeper and launchers.

All jobs are composed and checked before the first one starts. The sweep is one parent run in MLflow with a child per
job, and one folder `<outputs>/sweeps/<name>` that says how each job ended. A job that fails is reported and does not
take the others with it; one that is already done says so: typing the line again continues a sweep that was stopped.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.files import digest, locked, write_json
from maquette.artifacts.progress import say
from maquette.stages import Stage
from maquette.stages.composition import compose, compose_raw, opened, parse_overrides, register_schemas
from maquette.stages.config import StageConfig
from maquette.stages.folders import config_folders

_QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.job.chdir=false"]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a `-m` line means: of each job the words that set it apart, and its settings."""

    stage: Stage
    name: str
    words: list[list[str]]
    settings: list[Any]

    @property
    def folder(self) -> Path:
        """The same for the same line, so that it finds what it did before."""
        return Path(self.settings[0].outputs) / "sweeps" / self.name

    def run_job(self, number: int) -> None:
        """Runs job `number` (from 0) and writes down how it ended; only an interruption gets out of here."""
        title = f"[{number + 1}/{len(self.words)}] {' '.join(self.words[number])}"
        say(title)
        outcome: dict[str, Any] = {"job": self.words[number], "status": "finished", "exit_code": 0}
        try:
            result = self.stage.run(self.settings[number])
            outcome["result"] = str(getattr(result, "folder", result))
        except MaquetteError as error:
            outcome |= {"status": "failed", "exit_code": error.exit_code, "error": str(error)}
        except Exception as error:
            outcome |= {"status": "failed", "exit_code": 1, "error": f"{type(error).__name__}: {error}"}
        if outcome["status"] == "failed":
            say(f"{title} failed: {outcome['error']}")
        write_json(self.folder / "jobs" / f"{number:04d}.json", outcome)

    def outcomes(self) -> list[dict[str, Any]]:
        """How the jobs that ended did, in their order."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "jobs").glob("*.json"))]


def jobs(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[list[str]]:
    """The overrides of every job of a sweep, those of `hydra.sweeper.params` (a `+sweep=` file) included."""
    parsed = parse_overrides(overrides)
    fixed = [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
    composed = compose_raw(stage, fixed, config_folder, hydra=True)
    params = composed.hydra.sweeper.get("params") or {}
    given = {override.key_or_group for override in parsed}
    swept = [f"{key}={value}" for key, value in params.items() if key not in given]
    batches = BasicSweeper.split_arguments(parse_overrides([*swept, *overrides]), None)
    return [list(job) for batch in batches for job in batch]


def plan(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> Sweep:
    """All jobs of a `-m` line, composed and checked. Raises `ConfigError` for the first that is wrong."""
    planned = jobs(stage, overrides, config_folder)
    if not planned:
        raise ConfigError("the sweep has no jobs.", "Give a key several values: size=100k,300k.")
    settings = [compose(stage, job, config_folder) for job in planned]
    shared = set.intersection(*(set(job) for job in planned)) if len(planned) > 1 else set()
    words = [[word for word in job if word not in shared and not word.startswith("hydra")] for job in planned]
    chosen = next((text.partition("=")[2] for text in overrides if text.startswith("+sweep=")), stage.name)
    identity = digest([_identity(one) for one in settings])
    return Sweep(stage, f"{chosen}-{identity[:8]}", words, settings)


def multirun(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> int:
    """Runs a sweep; returns 0 when every job went well, else the exit code of the last that did not."""
    sweep = plan(stage, overrides, config_folder)
    say(f"sweep {sweep.name}: {len(sweep.words)} jobs of maquette {stage.name}")
    with locked(sweep.folder), _recorded(sweep) as recorded:
        for path in (sweep.folder / "jobs").glob("*.json"):
            path.unlink()
        register_schemas()
        search = [f"hydra.searchpath=[file://{config_folder}]"] if config_folder else []
        place = [f"hydra.sweep.dir={sweep.folder}", "hydra.sweep.subdir=."]

        def task(_: DictConfig) -> None:
            recorded.run_job(int(HydraConfig.get().job.num))

        with _command_line(["-m", *search, *_QUIET, *place, *opened(stage, overrides)]):
            hydra.main(version_base="1.3", config_path=str(config_folders()[0]), config_name=stage.name)(task)()
    outcomes = sweep.outcomes()
    failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    for outcome in failed:
        say(f"failed: {' '.join(outcome['job'])}")
    say(f"sweep {sweep.name}: {len(outcomes) - len(failed)} of {len(sweep.words)} jobs done")
    return int(failed[-1]["exit_code"]) if failed else 0


def draw_sweep(folder: Path) -> list[Path]:
    """See `sweep_pictures`, which is heavy to import."""
    from maquette.stages import sweep_pictures

    return sweep_pictures.draw_sweep(folder)


@contextlib.contextmanager
def _recorded(sweep: Sweep) -> Iterator[Sweep]:
    """The sweep with each job's record in MLflow a child of the sweep's own, which is made (or found again) here."""
    tracking = getattr(sweep.settings[0], "tracking", None)
    if tracking is None or not tracking.enabled:
        yield sweep
        draw_sweep(sweep.folder)
        return
    from maquette.tracking import start_parent_run

    path = sweep.folder / "sweep.json"
    before = json.loads(path.read_text()).get("run_id") if path.exists() else None
    with start_parent_run(
        tracking,
        outputs=sweep.settings[0].outputs,
        name=sweep.name,
        folder=sweep.folder,
        params={"stage": sweep.stage.name, "jobs": len(sweep.words)},
        run_id=before,
    ) as record:
        write_json(path, {"name": sweep.name, "run_id": record.run_id, "jobs": sweep.words})
        children = [
            dataclasses.replace(one, tracking=dataclasses.replace(one.tracking, parent=record.run_id))
            for one in sweep.settings
        ]
        yield dataclasses.replace(sweep, settings=children)
        for picture in draw_sweep(sweep.folder):
            record.log_artifact(picture, "figures")


def _identity(settings: StageConfig) -> dict[str, Any]:
    """What a job is, wherever it writes and however it is recorded."""
    return {
        key: value for key, value in dataclasses.asdict(settings).items() if key not in ("outputs", "force", "tracking")
    }


@contextlib.contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Hydra reads its command line from `sys.argv`."""
    before, sys.argv = sys.argv, ["maquette", *words]
    try:
        yield
    finally:
        sys.argv = before
