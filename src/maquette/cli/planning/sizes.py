"""`maquette alignment +sweep=alignment_sizes`: a study at several sizes of the base model, and one page over them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts.files import file_digest
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.model_config import AlignmentStage
from maquette.feedback.config import TaskInstructionsConfig


def run_sizes(config: AlignmentStage, study: Callable[[AlignmentStage], Path]) -> Path:
    """Runs `study` at every size that the settings name, and returns the folder of the page over all of them. A study
    that is done is left as it is, so that the same command resumes."""
    folders: dict[int, Path] = {}
    for size in config.sizes:
        base = {**config.base, "size": size}
        one = dataclasses.replace(config, base=base, sizes=[], title=f"{config.title}, {size}")
        folders[parse_quantity(size, "sizes")] = study(one)
    demonstrators = config.sft.get("instructions", {}).get("demonstrators", TaskInstructionsConfig().demonstrators)

    def make(folder: Path) -> dict[str, Any]:
        from maquette.feedback.study.measurement import read_measurement
        from maquette.feedback.study.sizes import demonstrators_level, write_sizes

        human = demonstrators_level(config.tasks, demonstrators, prompts=config.prompts, seed=config.seed + 1)
        measured = {size: read_measurement(place / "results.json") for size, place in sorted(folders.items())}
        return {"rows": write_sizes(folder, measured, human, config.title), "demonstrators": human.value}

    settings = {"title": config.title, "seed": config.seed, "prompts": config.prompts, "demonstrators": demonstrators}
    folder = build(
        "alignment", Path(config.outputs) / "artifacts", name=None, label="sizes", config=settings,
        inputs={str(size): file_digest(place / "results.json") for size, place in folders.items()}, make=make,
        force=config.force, say=say,
    )  # fmt: skip
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return folder
