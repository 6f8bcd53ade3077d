"""The stages as Python functions: `from maquette import train; train(overrides=["size=10k"])`.

The same composition, checks and fingerprint as the command line's; repeatedly, and in a notebook.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.stages import STAGES, Stage


def function_of(name: str) -> Callable[..., Any]:
    """The function of a stage. Raises `KeyError` where there is none of this name."""
    stage = STAGES["import" if name == "import_" else name]

    def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, multirun: bool = False) -> Any:
        from maquette.stages.composition import compose
        from maquette.stages.foreign import search_beside

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


def _swept(stage: Stage, overrides: Sequence[str], config_folder: Path | None) -> list[Any]:
    """The record of each job's run; where a stage makes none, the path or the text that it made."""
    from maquette.stages.multirun import sweep
    from maquette.stages.sweeps.work import FINISHED, Files
    from maquette.training.record import read_record

    report = sweep(stage, overrides, config_folder)
    outcomes = Files(report.folder).outcomes().values()
    failed = [outcome for outcome in outcomes if outcome["status"] != FINISHED]
    if failed:
        said = failed[-1]["error"]
        raise StageError(f"{len(failed)} of {len(outcomes)} jobs failed: {said}", f"See {report.folder}.")

    results = [outcome["result"] for outcome in outcomes]
    return [(read_record(result) if Path(result).is_dir() else None) or result for result in results]
