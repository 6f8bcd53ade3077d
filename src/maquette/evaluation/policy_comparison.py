"""Several models' completions to the same prompts, judged against one baseline; and what the judge itself is worth.

Where the prompts have a gold reward, the judge's leaderboard is set beside gold's: the rank correlation over policies
says how far the cheap judge can be trusted, with the time and money that it took.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import file_digest
from maquette.artifacts.progress import progress, say
from maquette.data.conversations import Prompt
from maquette.evaluation.journal import Journal
from maquette.evaluation.judges import agreement, rank_agreement
from maquette.evaluation.pairwise import PairwiseResult, compare_completions
from maquette.feedback.annotators.language_model import LanguageModelAnnotator
from maquette.feedback.annotators.simulated import GoldAnnotator
from maquette.feedback.building import build_annotator
from maquette.feedback.comparison import Annotator, Comparison, Judgement
from maquette.feedback.config import FeedbackConfig, PromptsConfig
from maquette.model.loading import find_reward_model, model_name, weights_digest
from maquette.statistics import holm
from maquette.text.chat import Message

LEAST_POLICIES = 3
"""Policies (the baseline is one) from which there is a rank correlation."""


def compare_policies(
    annotator: Annotator,
    prompts: Sequence[Sequence[Message]],
    completions: Mapping[str, Sequence[str]],
    baseline: str,
    *,
    facts: Sequence[Mapping[str, Any]],
    journal: Journal | None = None,
    price: float = 0.0,
    level: float = 0.9,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Win rates of every model of `completions` against `baseline`, one of them, as plain values.

    `price`: dollars for a judgement, where the annotator does not count its own costs as a language model does.
    What the judge took in time and money is kept in the `journal` too, so that it counts from the first call on.
    Raises `StageError` where nothing could be judged.
    """
    counted = _CountedAnnotator(annotator, journal, price)
    judged = {
        name: compare_completions(
            counted, prompts, own, completions[baseline], facts=facts, journal=journal, level=level, seed=seed,
            advance=advance,
        )
        for name, own in completions.items() if name != baseline
    }  # fmt: skip
    adjusted = holm([result.p_value for result in judged.values()])
    return {
        "judge": annotator.name,
        "prompts": len(prompts),
        "models": [
            _plain(name, result, completions[name]) | {"adjusted": float(p)}
            for (name, result), p in zip(judged.items(), adjusted, strict=True)
        ],
        "baseline_length": float(np.mean([len(completion) for completion in completions[baseline]])),
        **counted.costs,
        "gold": _beside_gold(judged, prompts, completions, baseline, facts, annotator.name, level, seed),
    }


def judge_completions(
    feedback: FeedbackConfig,
    prompts: Sequence[Prompt],
    completions: Mapping[str, Sequence[str]],
    baseline: str,
    *,
    journal: Path,
    outputs: str,
    level: float,
    seed: int,
    force: bool = False,
) -> dict[str, Any]:
    """`compare_policies` by the annotator that the settings describe, with its progress; judgements are kept in the
    file `journal`, and asked again with `force`."""
    if force:
        journal.unlink(missing_ok=True)
    pairs = [
        Comparison(one.messages, own, other, one.facts)
        for name, answers in completions.items() if name != baseline
        for one, own, other in zip(prompts, answers, completions[baseline], strict=True)
    ]  # fmt: skip
    # both orders are asked here for every judge, so a language model need not do so by itself
    annotator = build_annotator(dataclasses.replace(feedback, both_orders=False), outputs, pairs)
    # a language model shows its own progress, by question
    shown = progress("judging", len(pairs), unit="pairs")
    with nullcontext(lambda _: None) if feedback.kind == "language_model" else shown as advance:
        return compare_policies(
            annotator, [one.messages for one in prompts], completions, baseline, facts=[one.facts for one in prompts],
            journal=Journal(journal), price=feedback.label_price, level=level, seed=seed, advance=advance,
        )  # fmt: skip


def judge_of_own_prompts(feedback: FeedbackConfig, outputs: str, models: Sequence[str]) -> FeedbackConfig:
    """Who judges completions of prompts that have no gold reward, where the settings name nobody who can: the newest
    reward model of `outputs`; without one the first of `models` itself, by the probability of its verdict."""
    if feedback.kind != "simulated":
        return feedback
    try:
        judge = find_reward_model(None, outputs)
    except StageError:
        if not models:
            raise ConfigError(
                "Nobody can judge: these prompts have no gold reward, and there is no reward model.",
                "Name who does: feedback=language_model with feedback.url= or feedback.checkpoint=, or a reward model.",
            ) from None
        say(
            f"no gold reward for own prompts, and no reward model in {outputs}: {models[0]} judges, which is worth "
            "little if it is small. Name another with feedback=language_model feedback.url=... feedback.model=..."
        )
        by = {"kind": "language_model", "checkpoint": models[0], "verdict": "log_probability"}
        return dataclasses.replace(feedback, **by)  # type: ignore[arg-type]
    say(f"no gold reward for own prompts: the newest reward model judges, {model_name(judge)}")
    return dataclasses.replace(feedback, kind="reward_model", checkpoint=str(judge))


def comparison_identity(
    settings: Mapping[str, Any],
    feedback: FeedbackConfig,
    prompts: PromptsConfig,
    folders: Mapping[str, Path],
    outputs: str,
) -> dict[str, Any]:
    """What decides completions and judgements, so that the same question finds its journal again."""
    files = [path for path in (prompts.path, feedback.path) if path is not None]
    weights = dict(folders)
    if (judge := feedback.annotator_folder(outputs)) is not None:
        weights["judge"] = judge
    return {
        **settings,
        "feedback": feedback.identity("input_price", "output_price", "label_price"),
        "files": {path: file_digest(path) for path in files if Path(path).is_file()},
        "weights": {name: weights_digest(place) for name, place in weights.items()},
    }


class _CountedAnnotator:
    """An annotator whose judgements, seconds and dollars are counted, over all calls."""

    def __init__(self, annotator: Annotator, journal: Journal | None, price: float) -> None:
        self.name, self._annotator, self._journal, self._price = annotator.name, annotator, journal, price
        self._key = f"took|{annotator.name}"
        known = journal is not None and self._key in journal
        self._before: dict[str, float] = dict(journal[self._key]) if journal is not None and known else {}
        self._judgements, self._seconds = 0, 0.0

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        start = time.perf_counter()
        result = self._annotator.judge(comparisons)
        self._seconds += time.perf_counter() - start
        self._judgements += len(result)
        if self._journal is not None:
            self._journal.note(self._key, self.costs)
        return result

    @property
    def costs(self) -> dict[str, float]:
        """`judgements`, `seconds`; where judging has a price `dollars`; of a language model also `nonsense` replies."""
        now: dict[str, float] = {"judgements": self._judgements, "seconds": self._seconds}
        if isinstance(self._annotator, LanguageModelAnnotator):
            own = self._annotator.costs
            now |= {"dollars": own.dollars_in_all, "nonsense": own.nonsense}
        elif self._price:
            now["dollars"] = self._price * self._judgements
        return {name: value + self._before.get(name, 0) for name, value in now.items()}


def _plain(name: str, result: PairwiseResult, completions: Sequence[str]) -> dict[str, Any]:
    rate = result.rate
    return {
        "model": name, "win_rate": result.win_rate, "low": result.interval.low, "high": result.interval.high,
        "controlled": None if rate is None else rate.controlled,
        "controlled_error": None if rate is None else rate.standard_error,
        "wins": result.wins, "ties": result.ties, "losses": result.losses, "failed": result.failed,
        "p_value": result.p_value, "detectable": result.detectable,
        "first_shown": result.first_shown, "consistent": result.consistent,
        "length": float(np.mean([len(completion) for completion in completions])),
    }  # fmt: skip


def _beside_gold(
    judged: Mapping[str, PairwiseResult],
    prompts: Sequence[Sequence[Message]],
    completions: Mapping[str, Sequence[str]],
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
        name: compare_completions(
            GoldAnnotator(), prompts, completions[name], completions[baseline], facts=facts, level=level
        )
        for name in judged
    }
    signs = (np.concatenate([np.sign(side[name].preferences - 0.5) for name in judged]) for side in (judged, gold))
    alike = agreement(*signs)  # win, tie or loss; NaN where the judge failed
    agreement_with_gold: dict[str, Any] = {
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
            agreement_with_gold |= {"spearman": ranks.spearman, "kendall": ranks.kendall, "policies": ranks.policies}
            if ranks.interval is not None:
                agreement_with_gold |= {"low": ranks.interval.low, "high": ranks.interval.high}
    return agreement_with_gold


def short_names(result: Mapping[str, Any]) -> dict[str, str]:
    """What models are called before people (`called` of a comparison); published ones by their generator."""
    called = result.get("called", {})
    return {name: called.get(name, name) for name in (result["baseline"], *(row["model"] for row in result["models"]))}
