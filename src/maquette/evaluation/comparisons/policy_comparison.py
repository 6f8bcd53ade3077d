"""Several models' answers to the same prompts, judged against one baseline; and what the judge itself is worth.

Where the prompts have a gold reward, the judge's leaderboard is set beside gold's: the rank correlation over policies
says how far the cheap judge can be trusted, with the time and money that it took.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.artifacts.page import Fact, Page, Picture
from maquette.evaluation.comparisons.judges import agreement, rank_agreement
from maquette.evaluation.comparisons.pairwise import PairwiseResult, compare_answers
from maquette.evaluation.journal import Journal
from maquette.feedback.annotators.gold import GoldAnnotator
from maquette.feedback.annotators.language_model import LanguageModelAnnotator
from maquette.feedback.comparison import Annotator, Comparison, Judgement
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.text.chat import Message

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_POLICIES = 3
"""Policies (the baseline is one) from which a rank correlation is told."""


def judge_policies(
    annotator: Annotator,
    prompts: Sequence[Sequence[Message]],
    answers: Mapping[str, Sequence[str]],
    baseline: str,
    *,
    facts: Sequence[Mapping[str, Any]],
    journal: Journal | None = None,
    price: float = 0.0,
    level: float = 0.9,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Win rates of every model of `answers` against `baseline`, one of them, as plain values.

    `price`: dollars for a judgement, where the annotator does not count its own costs as a language model does.
    What the judge took in time and money is kept in the `journal` too, so that it counts from the first call on.
    Raises `StageError` where nothing could be judged.
    """
    paid = _Paid(annotator, journal, price)
    judged = {
        name: compare_answers(
            paid, prompts, own, answers[baseline], facts=facts, journal=journal, level=level, seed=seed,
            advance=advance,
        )
        for name, own in answers.items() if name != baseline
    }  # fmt: skip
    return {
        "judge": annotator.name,
        "prompts": len(prompts),
        "models": [_plain(name, result, answers[name]) for name, result in judged.items()],
        "baseline_length": float(np.mean([len(answer) for answer in answers[baseline]])),
        **paid.took,
        "gold": _beside_gold(judged, prompts, answers, baseline, facts, annotator.name, level, seed),
    }


class _Paid:
    """An annotator whose judgements, seconds and dollars are counted, over all calls."""

    def __init__(self, annotator: Annotator, journal: Journal | None, price: float) -> None:
        self.name, self._annotator, self._journal, self._price = annotator.name, annotator, journal, price
        self._key = f"took|{annotator.name}"
        known = journal is not None and self._key in journal
        self._before: dict[str, float] = dict(journal[self._key]) if journal is not None and known else {}
        self._judgements, self._seconds = 0, 0.0

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        start = time.perf_counter()
        found = self._annotator.judge(comparisons)
        self._seconds += time.perf_counter() - start
        self._judgements += len(found)
        if self._journal is not None:
            self._journal.add([(self._key, self.took)])
        return found

    @property
    def took(self) -> dict[str, float]:
        """`judgements`, `seconds`; where judging has a price `dollars`; of a language model also `nonsense` replies."""
        now: dict[str, float] = {"judgements": self._judgements, "seconds": self._seconds}
        if isinstance(self._annotator, LanguageModelAnnotator):
            costs = self._annotator.costs
            now |= {"dollars": costs.dollars_in_all, "nonsense": costs.nonsense}
        elif self._price:
            now["dollars"] = self._price * self._judgements
        return {name: value + self._before.get(name, 0) for name, value in now.items()}


def _plain(name: str, result: PairwiseResult, answers: Sequence[str]) -> dict[str, Any]:
    rate = result.rate
    return {
        "model": name, "win_rate": result.win_rate, "low": result.interval.low, "high": result.interval.high,
        "controlled": None if rate is None else rate.controlled,
        "controlled_error": None if rate is None else rate.standard_error,
        "wins": result.wins, "ties": result.ties, "losses": result.losses, "failed": result.failed,
        "first_shown": result.first_shown, "consistent": result.consistent,
        "length": float(np.mean([len(answer) for answer in answers])),
    }  # fmt: skip


def _beside_gold(
    judged: Mapping[str, PairwiseResult],
    prompts: Sequence[Sequence[Message]],
    answers: Mapping[str, Sequence[str]],
    baseline: str,
    facts: Sequence[Mapping[str, Any]],
    judge: str,
    level: float,
    seed: int,
) -> dict[str, Any] | None:
    """Gold's win rates, its agreement with the judge, and the rank correlation. None without gold rewards."""
    if not all("answer" in one for one in facts) or judge == GoldAnnotator.name:
        return None
    gold = {
        name: compare_answers(GoldAnnotator(), prompts, answers[name], answers[baseline], facts=facts, level=level)
        for name in judged
    }
    labels = [[label for name in judged for label in _labels(side[name])] for side in (judged, gold)]
    alike = agreement(*labels)
    found: dict[str, Any] = {
        "win_rates": {name: one.win_rate for name, one in gold.items()},
        "agreement": dataclasses.asdict(alike),
        "spearman": None,
    }
    if len(judged) + 1 >= LEAST_POLICIES:
        sound = np.all([np.isfinite(one.preferences) for one in judged.values()], axis=0)
        tables = [
            {baseline: np.full(int(sound.sum()), 0.5)} | {name: one.preferences[sound] for name, one in side.items()}
            for side in (judged, gold)
        ]
        # where one of them holds all policies equal there is no order to compare
        if sound.sum() > 1 and all(len({float(column.mean()) for column in side.values()}) > 1 for side in tables):
            ranks = rank_agreement(*tables, level=level, seed=seed)
            found |= {"spearman": ranks.spearman, "kendall": ranks.kendall, "policies": ranks.policies}
            if ranks.interval is not None:
                found |= {"low": ranks.interval.low, "high": ranks.interval.high}
    return found


def _labels(result: PairwiseResult) -> list[str | None]:
    names = {1.0: "win", 0.0: "tie", -1.0: "loss"}
    return [None if np.isnan(one) else names[float(np.sign(one - 0.5))] for one in result.preferences]


def write_page(folder: Path, result: Mapping[str, Any], examples: Sequence[tuple[str, Mapping[str, str]]]) -> Path:
    """Writes index.html and the figure (PNG and SVG); `examples`: (prompt, answers by model) to look at."""
    called = short_names(result)
    figure = win_rate_figure(result)
    save_figure(figure, folder / "figures" / "win_rates")
    page = Page(
        f"Win rates against {called[result['baseline']]}",
        eyebrow="Maquette comparison",
        lead=f"{result['prompts']:,} prompts, each judged by {result['judge']} in both orders; ties are half a win.",
        footer=f"Seed {result['seed']}; intervals of {result['level']:.0%} draw prompts.",
    )
    page.section("Who wins")
    page.pictures(Picture(figure, "Win rates with intervals over prompts, and the rate at equal length"))
    page.table(
        ["model", "win rate", "interval", "length-controlled", "wins", "ties", "losses", "failed", "characters"],
        [
            [
                called[row["model"]], (row["win_rate"], f"{row['win_rate']:.1f}%"),
                f"{row['low']:.1f} to {row['high']:.1f}",
                "can't be told" if row["controlled"] is None
                else (row["controlled"], f"{row['controlled']:.1f}% ± {row['controlled_error']:.1f}"),
                row["wins"], row["ties"], row["losses"], row["failed"], (row["length"], f"{row['length']:.0f}"),
            ]
            for row in result["models"]
        ],
        caption=f"Length-controlled: were answers as long as the baseline's ({result['baseline_length']:.0f} "
        "characters), with its standard error; it can't be told where nearly all are longer, or all shorter. Failed: "
        "prompts without a usable judgement, which count for nobody.",
    )  # fmt: skip
    page.section("Who judges")
    page.facts(_judge_facts(result))
    page.table(
        ["model", "first shown preferred", "same in both orders"],
        [
            [called[row["model"]], (row["first_shown"], f"{row['first_shown']:.1%}"), f"{row['consistent']:.1%}"]
            for row in result["models"]
        ],
        caption="A judge without a bias of position prefers what is shown first half of the time.",
    )
    if result["gold"] is not None:
        page.table(
            ["model", "win rate by the judge", "by gold"],
            [
                [called[row["model"]], (row["win_rate"], f"{row['win_rate']:.1f}%"),
                 f"{result['gold']['win_rates'][row['model']]:.1f}%"]
                for row in result["models"]
            ],
            caption="The judge's leaderboard beside that of the gold reward, on the same answers.",
        )  # fmt: skip
    page.section("Answers side by side")
    for prompt, answers in examples:
        page.samples([(f"{prompt}\n\n", answer, called[name]) for name, answer in answers.items()])
    return page.write(folder / "index.html")


def short_names(result: Mapping[str, Any]) -> dict[str, str]:
    """What models are called before people: the last part of a path, unless two of them share that."""
    called = {name: Path(name).name for name in (result["baseline"], *(row["model"] for row in result["models"]))}
    return called if len(set(called.values())) == len(called) else {name: name for name in called}


def _judge_facts(result: Mapping[str, Any]) -> list[Fact]:
    gold = result["gold"]
    facts = [Fact("judging took", f"{result['seconds']:.1f} s", f"{result['judgements']:,} judgements")]
    if "dollars" in result:
        note = f"{result['nonsense']:,} replies named neither answer" if "nonsense" in result else ""
        facts.append(Fact("judging cost", f"${result['dollars']:.2f}", note))
    if gold is None:
        return facts
    alike = gold["agreement"]
    facts.append(
        Fact(
            "agrees with gold", f"{alike['raw']:.0%}",
            f"{alike['by_chance']:.0%} by chance, kappa {alike['corrected']:.2f}, {alike['cases']:,} cases",
        )
    )  # fmt: skip
    if gold["spearman"] is not None:
        span = f"; {gold['low']:.2f} to {gold['high']:.2f}" if "low" in gold else ""
        facts.append(Fact("rank correlation with gold", f"{gold['spearman']:.2f}", f"{gold['policies']} models{span}"))
    return facts


def win_rate_figure(result: Mapping[str, Any]) -> "Figure":
    """A line for each model: the raw rate with its interval, and the length-controlled one with its standard error."""
    rows, called = result["models"], short_names(result)
    figure, axes = new_figure(width=6.4, height=1.6 + 0.5 * len(rows))
    first = next((place for place, row in enumerate(rows) if row["controlled"] is not None), None)
    for place, row in enumerate(rows):
        named = place == 0
        axes.plot([row["low"], row["high"]], [place - 0.1] * 2, color=COLORS[0], linewidth=1.6)
        axes.plot(row["win_rate"], place - 0.1, "o", color=COLORS[0], label="raw" if named else None)
        if row["controlled"] is not None:
            axes.errorbar(
                row["controlled"], place + 0.1, xerr=row["controlled_error"], fmt="s", color=COLORS[1], capsize=2,
                label="length-controlled (± standard error)" if place == first else None,
            )  # fmt: skip
        if result["gold"] is not None:
            axes.plot(
                result["gold"]["win_rates"][row["model"]], place, "D", color=COLORS[3], markersize=4,
                label="by gold" if named else None,
            )  # fmt: skip
    axes.axvline(50, color="#777777", linestyle="--", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_yticks(range(len(rows)), [called[row["model"]] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"win rate (%), {result['level']:.0%} intervals")
    axes.set_title(f"against {called[result['baseline']]}", fontsize=10)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure
