"""The stages as Python functions: `from maquette import train; train(overrides=["size=10k"])`.

The same composition, checks and fingerprint as the command line's; repeatedly, and in a notebook. `sweep` is what `-m`
does, for stages that begin with a sweep (the demo).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.cli.command_line.registry import STAGES, Stage

if TYPE_CHECKING:
    from maquette.cli.sweeps.running import Report


def function_of(name: str) -> Callable[..., Any]:
    """The function of a stage. Raises `KeyError` where there is none of this name."""
    stage = STAGES["import" if name == "import_" else name]

    def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, multirun: bool = False) -> Any:
        from maquette.cli.command_line.composition import compose
        from maquette.cli.command_line.foreign import search_beside

        folder = None if config_dir is None else Path(config_dir).resolve()
        search_beside(folder)
        if multirun:
            return _swept(stage, overrides, folder)
        return stage.run(compose(stage, list(overrides), folder))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = (
        f"`maquette {stage.name}`: {stage.help}.\n\n"
        "`overrides` are those of the command line; `config_dir` a folder with YAML files of your own. Returns what\n"
        "the stage makes: a run's record, a folder, rows. `multirun`: what `-m` does; gives a result a job.\n\n"
        "Raises `maquette.artifacts.ConfigError` for wrong settings, `StageError` where the stage can't do its work."
    )
    return run


def __getattr__(name: str) -> Callable[..., Any]:
    try:
        return function_of(name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def _swept(stage: Stage, overrides: Sequence[str], config_folder: Path | None) -> list[Any]:
    """The record of each job's run; where a stage makes none, the path or the text that it made."""
    from maquette.cli.sweeps.work import FINISHED, Files
    from maquette.training.record import read_record

    report = sweep(stage, overrides, config_folder)
    outcomes = Files(report.folder).outcomes().values()
    failed = [outcome for outcome in outcomes if outcome["status"] != FINISHED]
    if failed:
        error = failed[-1]["error"]
        raise StageError(f"{len(failed)} of {len(outcomes)} jobs failed: {error}", f"See {report.folder}.")

    results = [outcome["result"] for outcome in outcomes]
    return [(read_record(result) if Path(result).is_dir() else None) or result for result in results]


def sweep(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, show: bool = False) -> "Report":
    """Runs a sweep, and says what became of it. `show`: prints what it would run and cost, and runs nothing."""
    from maquette.cli.command_line.application import Application
    from maquette.cli.command_line.composition import explain
    from maquette.cli.command_line.config_errors import COMPOSING
    from maquette.cli.command_line.overrides import hydra_overrides

    options = ["-m", *([f"--config-dir={config_folder}"] if config_folder else [])]
    application = Application(stage, dry=show)
    arguments = hydra_overrides(stage, overrides, config_folder)
    try:
        application.main(options, arguments)
    except COMPOSING as error:
        raise explain(stage, error, arguments, config_folder) from None
    report: Report = application.sweep
    return report
