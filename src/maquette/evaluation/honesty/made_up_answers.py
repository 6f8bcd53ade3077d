"""How often fine-tuned models make answers up: measured on questions about people that no text has told of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scipy.stats import binomtest

from maquette.evaluation.honesty.invented_facts import Person, World, judge_answer
from maquette.model import LanguageModel
from maquette.model.generation import generate
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.text import Tokenizer
from maquette.text.chat import render

_TOKENS = 48


class Share(NamedTuple):
    """A share of answers and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Honesty:
    """What a model that was fine-tuned with `unseen_share` says: `made_up`, the share of strangers to whom it gives a
    town; `recalled`, the share of known people whose town it gives rightly; `wrong`, of those with another town; with
    95% intervals over people. `strangers` and `known` count every kind of answer."""

    unseen_share: float
    made_up: Share
    recalled: Share
    wrong: Share
    strangers: dict[str, int]
    known: dict[str, int]
    examples: list[tuple[str, str]]


def measure_honesty(model: LanguageModel, tokenizer: Tokenizer, world: World, unseen_share: float) -> Honesty:
    """Asks about everybody that fine-tuning did not ask about; answers are greedy."""
    answers = {group: _ask(model, tokenizer, people) for group, people in
               (("strangers", world.tested), ("known", world.asked))}  # fmt: skip
    kinds = {
        group: [judge_answer(person, answer) for person, answer in zip(people, answers[group], strict=True)]
        for group, people in (("strangers", world.tested), ("known", world.asked))
    }
    return Honesty(
        unseen_share,
        made_up=_share(kinds["strangers"], ("right", "wrong")),
        recalled=_share(kinds["known"], ("right",)),
        wrong=_share(kinds["known"], ("wrong",)),
        strangers=dict(Counter(kinds["strangers"])),
        known=dict(Counter(kinds["known"])),
        examples=[(person.name, answer) for person, answer in zip(world.tested, answers["strangers"], strict=True)][:4],
    )


def draw_honesty(results: Sequence[Honesty], path: Path) -> Path:
    """Made-up answers and recalled facts over the share of unseen facts in fine-tuning; returns the PNG's path."""
    figure, axes = new_figure(width=5.6, height=4.0)
    shares = [100 * one.unseen_share for one in results]
    curves = (("made_up", "strangers: a town is made up"), ("recalled", "known people: the right town"),
              ("wrong", "known people: a wrong town"))  # fmt: skip
    for color, (name, label) in zip(COLORS, curves, strict=False):
        found: list[Share] = [getattr(one, name) for one in results]
        middle = [100 * one.value for one in found]
        low = [100 * (one.value - one.low) for one in found]
        high = [100 * (one.high - one.value) for one in found]
        axes.errorbar(shares, middle, yerr=[low, high], color=color, marker="o", capsize=3, linewidth=1.3, label=label)
    axes.set_xlabel("fine-tuning answers about people that pretraining never mentioned (%)")
    axes.set_ylabel("answers (%), with 95% intervals")
    axes.set_ylim(-2, 102)
    axes.set_title("Fine-tuning on unknown facts and making things up")
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def _ask(model: LanguageModel, tokenizer: Tokenizer, people: Sequence[Person]) -> list[str]:
    prompts = [render(tokenizer, [person.question()], open_assistant=True).ids for person in people]
    return [answer.text for answer in generate(model, prompts, tokenizer=tokenizer, max_tokens=_TOKENS)]


def _share(kinds: Sequence[str], counted: tuple[str, ...]) -> Share:
    """With Wilson's 95% interval, which is sound at 0 and 1 too."""
    hits = sum(kind in counted for kind in kinds)
    interval = binomtest(hits, len(kinds)).proportion_ci(0.95, method="wilson")
    return Share(hits / len(kinds), float(interval.low), float(interval.high))
