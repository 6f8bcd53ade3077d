"""`maquette compare models=[sft,dpo]`: whose completions win, raw and at equal length, and how far the judge is right.

Run the command again to resume: completions and judgements are kept as they are made.
"""

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, file_digest, locked, write_json
from maquette.artifacts.progress import progress, say
from maquette.cli.command_line.model_config import CompareStage
from maquette.evaluation.completions import sampled_completions, show_comparison
from maquette.evaluation.figures import win_rate_figure
from maquette.evaluation.policy_comparison import compare_policies, short_names
from maquette.evaluation.row_files import Journal
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.feedback.building import annotator_folder, build_annotator
from maquette.feedback.comparison import Comparison
from maquette.model.loading import find_checkpoint, weights_digest
from maquette.reports import write_page
from maquette.tracking import start_run

FILE = "comparison.json"
_SHOWN = 6


def run(config: CompareStage) -> dict[str, Any]:
    """Judges every model against the baseline; writes comparison.json, index.html, figures, the completions and the
    journal of judgements, and returns the JSON's content."""
    if len(config.models) < 2:
        raise ConfigError("There is nothing to compare.", "Name two models or more: models=[run-a,run-b].")
    if config.feedback.kind == "callable":
        CallableAnnotator(config.feedback.callable)  # raises where it can't be imported, before anything is sampled
    folders = {name: find_checkpoint(name, config.outputs) for name in config.models}
    asked = _identity(config, folders)
    folder = Path(config.outputs) / "comparisons" / f"{config.feedback.kind}-{digest(asked)[:8]}"
    with locked(folder):
        if config.force:
            (folder / "journal.jsonl").unlink(missing_ok=True)
        with start_run(
            config.tracking, outputs=config.outputs, name=f"compare-{folder.name}", folder=folder,
            params={**asked, "models": ", ".join(map(str, folders))}, tags={"kind": "comparison"},
        ) as log:  # fmt: skip
            result, page = _compare(config, folders, asked, folder)
            rates = {f"win_rate/{Path(one['model']).name}": one["win_rate"] for one in result["models"]}
            log.log_metrics(rates, step=0)
            for made in (page, folder / FILE, folder / "figures"):
                log.log_artifact(made)
    if config.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show_comparison(result)
    say(f"Open {page.absolute().as_uri()}")
    return result


def _compare(
    config: CompareStage, folders: dict[str, Path], asked: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], Path]:
    prompts, completions = sampled_completions(
        folders, folder / "answers.json", config.prompts, count=config.count, temperature=config.temperature,
        max_completion_length=config.max_completion_length, seed=config.seed, force=config.force,
    )  # fmt: skip
    baseline = config.baseline or config.models[0]
    pairs = [
        Comparison(one.messages, own, other, one.facts)
        for name in config.models if name != baseline
        for one, own, other in zip(prompts, completions[name], completions[baseline], strict=True)
    ]  # fmt: skip
    # both orders are asked here for every judge, so a language model need not do so by itself
    annotator = build_annotator(dataclasses.replace(config.feedback, both_orders=False), config.outputs, pairs)
    # a language model shows its own progress, by question
    shown = progress("judging", len(pairs), unit="pairs")
    with nullcontext(lambda _: None) if config.feedback.kind == "language_model" else shown as advance:
        comparison = compare_policies(
            annotator, [one.messages for one in prompts], completions, baseline, facts=[one.facts for one in prompts],
            journal=Journal(folder / "journal.jsonl"), price=config.feedback.label_price, level=config.level,
            seed=config.seed, advance=advance,
        )  # fmt: skip
    result = {"baseline": baseline, "level": config.level, "seed": config.seed, "asked": asked, **comparison}
    examples = [
        (prompt.messages[-1]["content"], {name: completions[name][place] for name in config.models})
        for place, prompt in enumerate(prompts[:_SHOWN])
    ]
    called = short_names(result)
    facts = {**result, "called": called, "examples": examples}
    page = write_page(folder, "comparison.html.j2", facts, {"win_rates": win_rate_figure(result, called)})
    write_json(folder / FILE, result)
    return result, page


def _identity(config: CompareStage, folders: dict[str, Path]) -> dict[str, Any]:
    """What decides completions and judgements, so that the same question finds its journal again."""
    settings = dataclasses.asdict(config)
    for key in ("outputs", "force", "tracking", "models", "json", "level"):
        del settings[key]
    files = [path for path in (config.prompts.path, config.feedback.path) if path is not None]
    weights = dict(folders)
    if (judge := annotator_folder(config.feedback, config.outputs)) is not None:
        weights["judge"] = judge
    return settings | {
        "feedback": config.feedback.identity("input_price", "output_price", "label_price"),
        "files": {path: file_digest(path) for path in files if Path(path).is_file()},
        "weights": {name: weights_digest(place) for name, place in weights.items()},
    }
