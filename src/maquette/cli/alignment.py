"""`maquette alignment +experiment=alignment`: a base model, fine-tuned and aligned in several ways, compared on a page.

Which stage runs after which is the recipe (`planning.study.align`); the numbers are in conf/experiment and conf/sweep.
A comparison of one's own is another recipe, given to `run` (experiments/rounds.py is one). The same command resumes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.cli.planning.sizes import run_sizes
from maquette.cli.planning.study import Study, align

_COMPARED = ("title", "figures", "tasks", "prompts", "max_completion_length", "best_of", "seed")


def run(config: AlignmentStage, recipe: Callable[[Study], None] = align) -> Path:
    """Runs what is not done yet, measures, and returns the folder of the study, with `index.html`.

    `recipe` trains a run "sft", the reference of all others. Raises `ConfigError` for settings that can't be, before
    anything runs, and whatever the stages raise.
    """
    config.require_study()
    if config.sizes:
        return run_sizes(config, lambda one: run(one, recipe))
    study = Study(config, recipe)
    study.run()
    compared = {key: getattr(config, key) for key in _COMPARED}
    names = {"names": list(study.made), "rewards": study.rewards, "curves_by_policy": study.curves_by_policy}
    inputs = {name: record.spec.fingerprint for name, record in study.records.items()}
    inputs |= {f"{name} elsewhere": one["fingerprint"] for name, one in study.evaluations.items()}

    def make(folder: Path) -> dict[str, Any]:
        from maquette.feedback.study.comparison import compare_runs

        return compare_runs(
            folder, study.made, study.records, study.policies, study.rewards, study.curves_by_policy,
            study.evaluations, outputs=config.outputs, **compared,
        )  # fmt: skip

    def record(folder: Path) -> None:
        from maquette.feedback.study.comparison import record_study

        record_study(folder, config.title, config.seed, outputs=config.outputs, tracking=config.tracking)

    label = config.title.lower().replace(" ", "-").replace(",", "")
    folder = build(
        "alignment", Path(config.outputs) / "artifacts", name=None, label=label, config=compared | names,
        inputs=inputs, make=make, made=record, force=config.force, say=say,
    )  # fmt: skip
    page = folder / "index.html" if study.demo is None else study.demo.write(folder)
    say(f"Open {page.absolute().as_uri()}")
    return folder
