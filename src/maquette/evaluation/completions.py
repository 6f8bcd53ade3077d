"""Completions of several models to the same prompts, to be compared, and the comparison at the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts import StageError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.data.conversations import Prompt, render_prompt
from maquette.evaluation.figures import controlled_intervals, win_rate_figure
from maquette.evaluation.model_outputs import write_model_outputs
from maquette.evaluation.policy_comparison import short_names
from maquette.feedback.config import PromptsConfig
from maquette.feedback.policies import sample_many, say_cut
from maquette.feedback.prompts import open_prompts, read_prompts
from maquette.model.loading import load_checkpoint
from maquette.reports import terminal_table, write_page
from maquette.reports.tables import p_value
from maquette.text.chat import Message
from maquette.tracking import RunLog
from maquette.training.devices import threads_for

FILE = "comparison.json"
OUTPUTS = "model_outputs.json"
"""Every model's completions in AlpacaEval's format, which `model_outputs=` and alpaca_eval read."""
_SHOWN = 6
"""Prompts whose completions are on the page."""


def sampled_completions(
    folders: Mapping[str, Path],
    cache: Path,
    prompts: PromptsConfig,
    *,
    count: int,
    max_completion_length: int,
    temperature: float,
    seed: int,
    force: bool = False,
    given: Sequence[Prompt] = (),
    systems: Mapping[str, str] | None = None,
) -> tuple[list[Prompt], dict[str, Sequence[str]]]:
    """The same prompts for every model of `folders`, at most `count`, and its completions: those in the file `cache`,
    or sampled and put there. `given`: prompts instead of those that the settings name. `systems`: by the name of a
    model, what its system prompt says; who judges does not see it.

    Raises `StageError` where a prompt does not fit a model, or the file is damaged."""
    known: dict[str, list[str]] = {}
    cut: dict[str, int] = {}
    if cache.exists() and not force:
        stored = load_sealed(cache, hint="Remove it: the completions are sampled again.")
        known, cut = stored["completions"], stored.get("cut", {})
    chosen: list[Prompt] = list(given[:count])
    for name, place in folders.items():
        model, tokenizer = load_checkpoint(place)
        longest = max(1, model.config.max_position_embeddings - max_completion_length)
        chosen = chosen or _fitting(prompts, count, tokenizer, longest)
        system = (systems or {}).get(name)
        own = [render_prompt(tokenizer, with_system(one.messages, system), one.facts) for one in chosen]
        if (most := max(len(one.ids) for one in own)) > longest:
            raise StageError(
                f"{name} has no room for a prompt of {most:,} tokens and a completion.",
                "Put the model with the shortest context first in models=, or use shorter prompts.",
            )
        if name not in known:
            with threads_for(model.config.hidden_size):
                sampled = sample_many(
                    model, tokenizer, own, 1, max_tokens=max_completion_length, temperature=temperature, seed=seed
                )
            known[name] = [row[0].answer for row in sampled]
            cut[name] = sum(not row[0].ended for row in sampled)
            write_sealed(cache, {"completions": known, "cut": cut})
        say_cut(cut.get(name, 0), len(known[name]), max_completion_length, f" of {Path(name).name}")
    return chosen, {name: known[name] for name in folders}


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The conversation with `system` in its system prompt, after what stands there already."""
    if system is None:
        return list(messages)
    before = [one["content"] for one in messages if one["role"] == "system"]
    others = [one for one in messages if one["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join([*before, system])}, *others]


def _fitting(prompts: PromptsConfig, count: int, tokenizer: Any, longest: int) -> list[Prompt]:
    """Held-out prompts of the tasks, or the first of a file that leave room for a completion, each once."""
    if prompts.path is None:
        source = open_prompts(prompts, tokenizer, longest=longest, split="held_out")
        return [source[number] for number in range(count)]
    everything = read_prompts(prompts.open_rows("prompts"), tokenizer)
    fitting = [one for one in everything if len(one.ids) <= longest]
    if len(fitting) < len(everything):
        say(f"{len(everything) - len(fitting):,} of {len(everything):,} prompts are too long for the model: left out.")
    if len(fitting) < 2:
        raise StageError(f"{prompts.path} has fewer than two prompts that fit.", "Give more or shorter ones.")
    return fitting[:count]


def write_comparison(
    folder: Path,
    result: dict[str, Any],
    prompts: Sequence[Prompt],
    completions: Mapping[str, Sequence[str]],
    log: RunLog,
) -> Path:
    """Writes comparison.json, the figures and index.html with a few completions, and hands them to the tracker; returns
    the page."""
    examples = [
        (prompt.messages[-1]["content"], {name: own[place] for name, own in completions.items()})
        for place, prompt in enumerate(prompts[:_SHOWN])
    ]
    called = short_names(result)
    facts = {**result, "called": called, "examples": examples, "controlled": controlled_intervals(result)}
    page = write_page(folder, "comparison.html.j2", facts, {"win_rates": win_rate_figure(result, called)})
    write_json(folder / FILE, result)
    write_model_outputs(folder / OUTPUTS, prompts, completions, called)
    log.log_metrics({f"win_rate/{called[one['model']]}": one["win_rate"] for one in result["models"]}, step=0)
    for made in (page, folder / FILE, folder / OUTPUTS, folder / "figures"):
        log.log_artifact(made)
    return page


def show_comparison(result: Mapping[str, Any]) -> None:
    """Win rates, and what the judge is worth, at the terminal."""
    called = short_names(result)
    rows = []
    for row in result["models"]:
        controlled = "can't be told"
        if row["controlled"] is not None:
            controlled = f"{row['controlled']:.1f} ± {row['controlled_error']:.1f}"
        counts = f"{row['wins']:,}-{row['ties']:,}-{row['losses']:,}"
        span = f"{row['low']:.1f}-{row['high']:.1f}"
        rows.append(
            (called[row["model"]], f"{row['win_rate']:.1f}", span, p_value(row["adjusted"]), controlled, counts)
        )
    columns = ("model", "win rate", "interval", "p (Holm)", "at equal length", "won, tied, lost")
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
