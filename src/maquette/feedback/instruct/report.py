"""The page of an author's instructions: what was kept and why the rest was not, how varied it is, how far from the
seeds, how long, and what it cost.

Verbs and nouns are found by a rule, not by a parser (Self-Instruct uses one): the verb is the first word of an
instruction, after "please", "can you" and the like; the noun is the last word before the first comma, preposition,
conjunction or relative word after the verb. A question has its question word in the place of a verb, and no noun.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.feedback.instruct.filters import NOVELTY, REASONS, TaskFilter, words
from maquette.feedback.instruct.tasks import SeedTask, WrittenTask
from maquette.reports import write_page
from maquette.reports.figures import COLORS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 8
"""Rows of a table, and tasks in full."""

_OPENINGS = re.compile(
    r"^(please|kindly|now|(can|could|would|will) you( please)?|(i want|i'd like|your task is) (you )?to)\b[ ,]*"
)


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_QUESTIONS = _listed(
    "what who whom whose which where when why how is are was were do does did can could should would will if"
)
_ENDS = _listed(
    "of in on at to for from with without by about into onto over under between among after before during as than like "
    "and or but so that which who whose where when why how what if whether because while using until per against "
    "through based is are was were has have can could should would will"
)
_ARTICLES = _listed("a an the this that these those each every all some any your my his her its their our")


def verb_and_noun(instruction: str) -> tuple[str, str]:
    """By the rule above; empty where it finds none."""
    text = _OPENINGS.sub("", instruction.strip().lower().lstrip("\"'`*- "))
    sentence = re.split(r"[.,;:?!()\n\"]", text, maxsplit=1)[0]
    sentence_words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+", sentence)
    if not sentence_words:
        return "", ""
    verb, *rest = sentence_words
    if verb in _QUESTIONS:
        return verb, ""
    phrase: list[str] = []
    for word in rest:
        if word in _ENDS and not (word in _ARTICLES and not phrase):
            break
        phrase.append(word)
    phrase = [word for word in phrase if word not in _ARTICLES]
    return verb, phrase[-1] if phrase else ""


def variety(instructions: Sequence[str]) -> dict[str, Any]:
    """Distinct verbs and pairs of verb and noun, and the most frequent ones: `pairs` as (verb, noun, how often)."""
    pairs = Counter(verb_and_noun(one) for one in instructions)
    verbs = Counter(verb for verb, _ in pairs.elements())
    return {
        "instructions": len(instructions), "verbs": len(verbs), "pairs": len(pairs),
        "most_frequent": [(*pair, often) for pair, often in pairs.most_common(_SHOWN)],
    }  # fmt: skip


def write_report_page(
    folder: Path, facts: Mapping[str, Any], task_filter: TaskFilter, seeds: Sequence[SeedTask]
) -> Path:
    """Writes index.html and its figures into `folder`, from the facts of `write_outcome`; returns the page."""
    tasks: dict[str, Sequence[SeedTask | WrittenTask]] = {
        "accepted": [one.task for one in task_filter.accepted],
        "seeds": seeds,
    }
    page = {
        **facts,
        "novelty": NOVELTY,
        "by_reason": [(reason, facts["reasons"][reason], REASONS[reason]) for reason in facts["reasons"]],
        "variety": {name: variety([one.instruction for one in own]) for name, own in tasks.items()},
        "nearest": sorted(task_filter.accepted, key=lambda one: -one.seed_similarity)[:_SHOWN],
        "lengths": [
            {"part": part, **{name: _middle([getattr(one, part) for one in own]) for name, own in tasks.items()}}
            for part in ("instruction", "input", "output")
        ],
        "examples": tasks["accepted"][:_SHOWN],
    }  # fmt: skip
    figures = {"nearest_seed": _nearest_seed(task_filter), "lengths": _output_lengths(tasks)}
    return write_page(folder, "instruct.html.j2", page, figures)


def _middle(texts: Sequence[str]) -> str:
    """Median and largest number of words of those that are there."""
    lengths = sorted(len(words(text)) for text in texts if text)
    return (
        f"{lengths[len(lengths) // 2]} (at most {lengths[-1]}; {len(lengths)} of {len(texts)})" if lengths else "none"
    )


def _nearest_seed(task_filter: TaskFilter) -> "Figure":
    """How near instructions are to their nearest seed."""
    figure, axes = new_figure(width=5.6, height=2.8)
    judged = [*task_filter.accepted, *(one for one in task_filter.rejected if one.reason == "not new")]
    bins = [place / 20 for place in range(21)]
    axes.hist([one.seed_similarity for one in judged], bins=bins, color=COLORS[1], label="not new")
    axes.hist([one.seed_similarity for one in task_filter.accepted], bins=bins, color=COLORS[0], label="accepted")
    axes.axvline(NOVELTY, color="#777777", linestyle="--", linewidth=1)
    axes.set(xlabel="likeness to the nearest seed task (ROUGE-L)", ylabel="tasks", xlim=(0, 1))
    axes.legend(fontsize=8)
    return figure


def _output_lengths(tasks: Mapping[str, Sequence[SeedTask | WrittenTask]]) -> "Figure":
    """Words of outputs, beside those of the seeds."""
    figure, axes = new_figure(width=5.6, height=2.8)
    lengths = {name: [len(words(one.output)) for one in own] for name, own in tasks.items()}
    most = max(10, *(max(values, default=0) for values in lengths.values()))
    for color, (name, values) in zip(COLORS, lengths.items(), strict=False):
        axes.hist(
            values, bins=[most * place / 20 for place in range(21)], weights=[1 / max(1, len(values))] * len(values),
            histtype="step", linewidth=1.6, color=color, label=name,
        )  # fmt: skip
    axes.set(xlabel="words of the output", ylabel="share of the tasks")
    axes.legend(fontsize=8)
    return figure
