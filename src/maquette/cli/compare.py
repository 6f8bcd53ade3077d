"""`maquette compare models=[sft,dpo]`: whose answers win, raw and at equal length, and how far the judge is right.

Typing the same line again goes on with a judging that was killed; answers and judgements are kept as they are made.
"""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import digest, file_digest, locked, write_json
from maquette.artifacts.progress import progress, say
from maquette.cli.command_line.model_config import CompareStage
from maquette.data.prompts import Prompt, render_prompt
from maquette.evaluation.comparisons.policy_comparison import judge_policies, short_names
from maquette.evaluation.figures import win_rate_figure
from maquette.evaluation.row_files import Journal
from maquette.feedback.annotators.custom import CallableAnnotator
from maquette.feedback.building import annotator_folder, build_annotator
from maquette.feedback.comparison import Comparison
from maquette.feedback.policies import sample_many
from maquette.feedback.prompts import open_prompts, read_prompts
from maquette.model.loading import find_checkpoint, load_checkpoint, model_folder
from maquette.reports import terminal_table, write_page
from maquette.tracking import start_run

FILE = "comparison.json"
_SHOWN = 6


def run(config: CompareStage) -> dict[str, Any]:
    """Judges every model against the baseline; writes comparison.json, index.html, figures, the answers and the
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
            log.log_metrics(
                {f"win_rate/{Path(one['model']).name}": one["win_rate"] for one in result["models"]}, step=0
            )
            for made in (page, folder / FILE, folder / "figures"):
                log.log_artifact(made)
    if config.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _show(result)
    say(f"Open {page.absolute().as_uri()}")
    return result


def _compare(
    config: CompareStage, folders: dict[str, Path], asked: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], Path]:
    prompts, answers = _answers(config, folders, folder / "answers.json")
    baseline = config.baseline or config.models[0]
    pairs = [
        Comparison(one.messages, answer, other, one.facts)
        for name in config.models if name != baseline
        for one, answer, other in zip(prompts, answers[name], answers[baseline], strict=True)
    ]  # fmt: skip
    # both orders are asked here for every judge, so a language model need not do so by itself
    annotator = build_annotator(dataclasses.replace(config.feedback, both_orders=False), config.outputs, pairs)
    # a language model shows its own progress, by question
    shown = (
        nullcontext(_silent)
        if config.feedback.kind == "language_model"
        else progress("judging", len(pairs), unit="pairs")
    )
    with shown as advance:
        found = judge_policies(
            annotator, [one.messages for one in prompts], answers, baseline, facts=[one.facts for one in prompts],
            journal=Journal(folder / "journal.jsonl"), price=config.feedback.label_price, level=config.level,
            seed=config.seed, advance=advance,
        )  # fmt: skip
    result = {"baseline": baseline, "level": config.level, "seed": config.seed, "asked": asked, **found}
    examples = [
        (prompt.messages[-1]["content"], {name: answers[name][place] for name in config.models})
        for place, prompt in enumerate(prompts[:_SHOWN])
    ]
    called = short_names(result)
    facts = {**result, "called": called, "examples": examples}
    page = write_page(folder, "comparison.html.j2", facts, {"win_rates": win_rate_figure(result, called)})
    write_json(folder / FILE, result)
    return result, page


def _silent(amount: float) -> None:
    pass


def _answers(
    config: CompareStage, folders: dict[str, Path], kept: Path
) -> tuple[list[Prompt], dict[str, Sequence[str]]]:
    """The same prompts for every model, and its answers: those in the file `kept`, or sampled and put there."""
    known: dict[str, list[str]] = {}
    if kept.exists() and not config.force:
        try:
            known = json.loads(kept.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StageError(f"{kept} is damaged: {error}.", "Remove it: the answers are sampled again.") from None
    prompts: list[Prompt] = []
    for name, place in folders.items():
        model, tokenizer = load_checkpoint(place)
        longest = max(1, model.config.max_position_embeddings - config.max_completion_length)
        prompts = prompts or _prompts(config, tokenizer, longest)
        own = [render_prompt(tokenizer, one.messages, one.facts) for one in prompts]
        if (most := max(len(one.ids) for one in own)) > longest:
            raise StageError(
                f"{name} has no room for a prompt of {most:,} tokens and an answer.",
                "Put the model with the shortest context first in models=, or use shorter prompts.",
            )
        if name not in known:
            sampled = sample_many(
                model, tokenizer, own, 1, max_tokens=config.max_completion_length, temperature=config.temperature,
                seed=config.seed,
            )  # fmt: skip
            known[name] = [row[0].answer for row in sampled]
            write_json(kept, known)
    return prompts, {name: known[name] for name in config.models}


def _prompts(config: CompareStage, tokenizer: Any, longest: int) -> list[Prompt]:
    """Held-out prompts of the tasks, or the first of a file that leave room for an answer, each once."""
    if config.prompts.path is None:
        source = open_prompts(config.prompts, tokenizer, longest=longest, split="held_out")
        return [source[number] for number in range(config.count)]
    everything = read_prompts(config.prompts.path, tokenizer)
    fitting = [one for one in everything if len(one.ids) <= longest]
    if len(fitting) < len(everything):
        say(f"{len(everything) - len(fitting):,} of {len(everything):,} prompts are too long for the model: left out.")
    if len(fitting) < 2:
        raise StageError(f"{config.prompts.path} has fewer than two prompts that fit.", "Give more or shorter ones.")
    return fitting[: config.count]


def _identity(config: CompareStage, folders: dict[str, Path]) -> dict[str, Any]:
    """What decides answers and judgements, so that the same question finds its journal again."""
    settings = dataclasses.asdict(config)
    for key in ("outputs", "force", "tracking", "models", "json", "level"):
        del settings[key]
    for key in ("retries", "workers", "key_variable", "input_price", "output_price", "label_price"):
        del settings["feedback"][key]
    files = [path for path in (config.prompts.path, config.feedback.path) if path is not None]
    weights = dict(folders)
    if (judge := annotator_folder(config.feedback, config.outputs)) is not None:
        weights["judge"] = judge
    if config.feedback.callable is not None:
        settings["feedback"]["code"] = code_digest(config.feedback.callable)
    return settings | {
        "files": {path: file_digest(path) for path in files if Path(path).is_file()},
        "weights": {
            name: digest([file_digest(path) for path in sorted(model_folder(place).glob("*.safetensors"))])
            for name, place in weights.items()
        },
    }


def _show(result: dict[str, Any]) -> None:
    called = short_names(result)
    rows = []
    for row in result["models"]:
        controlled = "can't be told"
        if row["controlled"] is not None:
            controlled = f"{row['controlled']:.1f} ± {row['controlled_error']:.1f}"
        counts = f"{row['wins']:,}-{row['ties']:,}-{row['losses']:,}"
        span = f"{row['low']:.1f}-{row['high']:.1f}"
        rows.append((called[row["model"]], f"{row['win_rate']:.1f}", span, controlled, counts))
    columns = ("model", "win rate", "interval", "at equal length", "won-tied-lost")
    title = f"against {called[result['baseline']]}, by {result['judge']}"
    Console().print(terminal_table(columns, rows, title))
    if failed := sum(row["failed"] for row in result["models"]):
        say(f"{failed:,} prompts got no usable judgement and count for nobody.")
    if (gold := result["gold"]) is not None:
        alike = gold["agreement"]
        line = f"Beside gold: alike on {alike['raw']:.1%} (kappa {alike['corrected']:.3f})"
        if gold["spearman"] is not None:
            line += f", rank correlation over {gold['policies']} models {gold['spearman']:.2f}"
        cost = f" and ${result['dollars']:,.2f}" if "dollars" in result else ""
        say(f"{line}; judging took {result['seconds']:.1f} s{cost}.")
