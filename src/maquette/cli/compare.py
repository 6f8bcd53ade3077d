"""`maquette compare models=[sft,dpo]`: whose completions win, raw and at equal length, and how far the judge is right.

Run the command again to resume: completions and judgements are kept as they are made.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, locked
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import CompareStage
from maquette.evaluation.completions import sampled_completions, show_comparison, write_comparison
from maquette.evaluation.policy_comparison import comparison_identity, judge_completions
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.model.loading import find_checkpoint
from maquette.tracking import start_run


def run(config: CompareStage) -> dict[str, Any]:
    """Judges every model against the baseline; writes comparison.json, index.html, figures, the completions and the
    journal of judgements, and returns the JSON's content."""
    if len(config.models) < 2:
        raise ConfigError("There is nothing to compare.", "Name two models or more: models=[run-a,run-b].")
    if config.feedback.kind == "callable":
        CallableAnnotator(config.feedback.callable)  # raises where it can't be imported, before anything is sampled
    folders = {name: find_checkpoint(name, config.outputs) for name in config.models}
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in _NOT_WHAT}
    asked = comparison_identity(settings, config.feedback, config.prompts, folders, config.outputs)
    folder = Path(config.outputs) / "comparisons" / f"{config.feedback.kind}-{digest(asked)[:8]}"
    params, tags = {**asked, "models": ", ".join(map(str, folders))}, {"kind": "comparison"}
    with (
        locked(folder),
        start_run(
            config.tracking, outputs=config.outputs, name=f"compare-{folder.name}", folder=folder, params=params,
            tags=tags,
        ) as log,
    ):  # fmt: skip
        prompts, completions = sampled_completions(
            folders, folder / "answers.json", config.prompts, count=config.count, temperature=config.temperature,
            max_completion_length=config.max_completion_length, seed=config.seed, force=config.force,
        )  # fmt: skip
        baseline = config.baseline or config.models[0]
        result = {"baseline": baseline, "level": config.level, "seed": config.seed, "asked": asked}
        result |= judge_completions(
            config.feedback, prompts, completions, baseline, journal=folder / "journal.jsonl", outputs=config.outputs,
            level=config.level, seed=config.seed, force=config.force,
        )  # fmt: skip
        page = write_comparison(folder, result, prompts, completions, log)
    print(json.dumps(result, indent=2, ensure_ascii=False)) if config.json else show_comparison(result)
    say(f"Open {page.absolute().as_uri()}")
    return result


_NOT_WHAT = ("outputs", "force", "tracking", "models", "json", "level")
"""Settings that decide neither completions nor judgements."""
