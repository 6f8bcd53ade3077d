"""`maquette compare models=[sft,dpo]`: whose completions win, raw and at equal length, and how far the judge is right.

Run the command again to resume: completions and judgements are kept as they are made.
"""

import json
from pathlib import Path
from typing import Any

from maquette.artifacts.files import digest, locked
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import CompareStage
from maquette.evaluation.completions import sampled_completions, show_comparison, write_comparison
from maquette.evaluation.model_outputs import baseline_of, read_model_outputs
from maquette.evaluation.policy_comparison import comparison_identity, judge_completions, judge_of_own_prompts
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.model.loading import find_checkpoint
from maquette.tracking import start_run


def run(config: CompareStage) -> dict[str, Any]:
    """Judges every model against the baseline; writes comparison.json, index.html, figures, the completions and the
    journal of judgements, and returns the JSON's content."""
    given, published = read_model_outputs(config.model_outputs) if config.model_outputs else ([], {})
    names = [*config.models, *published, *config.systems()]
    baseline = baseline_of(names, config.baseline)
    if config.feedback.kind == "callable":
        CallableAnnotator(config.feedback.callable)  # raises where it can't be imported, before anything is sampled
    if config.prompts.path is not None or published:
        config.feedback = judge_of_own_prompts(config.feedback, config.outputs, config.models)
    folders = {name: find_checkpoint(name, config.outputs, key="models") for name in config.models}
    folders |= {name: folders[model] for name, (model, _) in config.systems().items()}
    settings = config.identity() | ({"published": digest(published)} if published else {})
    asked = comparison_identity(settings, config.feedback, config.prompts, folders, config.outputs)
    folder = Path(config.outputs) / "comparisons" / f"{config.feedback.kind}-{digest(asked)[:8]}"
    params, tags = {**asked, "models": ", ".join(names)}, {"kind": "comparison"}
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
            given=given, systems={name: text for name, (_, text) in config.systems().items()},
        )  # fmt: skip
        completions |= {name: own[: len(prompts)] for name, own in published.items()}
        result = {"baseline": baseline, "level": config.level, "seed": config.seed, "asked": asked}
        result["called"] = config.called(folders)
        result |= judge_completions(
            config.feedback, prompts, completions, baseline, journal=folder / "journal.jsonl", outputs=config.outputs,
            level=config.level, seed=config.seed, force=config.force,
        )  # fmt: skip
        page = write_comparison(folder, result, prompts, completions, log)
    print(json.dumps(result, indent=2, ensure_ascii=False)) if config.json else show_comparison(result)
    say(f"Open {page.absolute().as_uri()}")
    return result
