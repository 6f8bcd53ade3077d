"""Annotation from pairs to labels and their report."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts import StageError
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.data.conversations import read_preferences, write_preferences
from maquette.feedback.agreement import Votes, inter_annotator_agreement
from maquette.feedback.annotators.language_model import LanguageModelAnnotator
from maquette.feedback.annotators.simulated import GoldAnnotator, gold_of
from maquette.feedback.building import build_annotator, other_people
from maquette.feedback.comparison import Annotator, Comparison, Judgement, comparison_of, preferences_of
from maquette.feedback.config import PREFERENCES, FeedbackConfig
from maquette.feedback.report import Labels, describe_annotator, votes_of, write_report
from maquette.tracking import start_run
from maquette.tracking.config import TrackingConfig


def annotate(
    pairs: Sequence[Comparison],
    config: FeedbackConfig,
    folder: Path,
    outputs: Path | str,
    *,
    repeats: int,
    before: Sequence[str] = (),
    judges: Mapping[str, FeedbackConfig] | None = None,
) -> dict[str, Any]:
    """Has every pair judged, writes preferences.jsonl and the report into `folder`; returns the manifest's facts.

    `repeats`: simulated people judge so many times (each time others), so that agreement, bias and variance can be
    measured; the first labels are the ones that are written, after those of the files `before`. `judges` judge the same
    pairs for the report alone. Raises `StageError` where nothing was decided."""
    if not pairs:
        raise StageError(
            "There is no pair of different completions to judge.", "Sample at a higher temperature, or more."
        )
    annotator = build_annotator(config, outputs, pairs)
    judged = annotator.judge(pairs)
    labels_now = list(preferences_of(pairs, judged, annotator.name))
    written = len(labels_now)
    write_preferences(folder / PREFERENCES, [*(one for path in before for one in read_preferences(path)), *labels_now])
    if not written:
        why = ""
        if isinstance(annotator, LanguageModelAnnotator):
            costs = annotator.costs
            why = (
                f" {costs.nonsense:,} of its {costs.asked + costs.cached:,} replies named neither completion, "
                f"{costs.contradictions:,} pairs were judged otherwise when turned round."
            )
        raise StageError(
            f"{annotator.name} decided none of {len(pairs):,} pairs.{why}", "Let somebody else judge, or other pairs."
        )
    gold = gold_differences(pairs)
    labels = [_labels_of(annotator, judged, config, pairs, outputs, repeats)]
    for name, other in (judges or {}).items():
        beside = build_annotator(other, outputs, pairs)
        theirs = _labels_of(beside, beside.judge(pairs), other, pairs, outputs, repeats)
        labels.append(dataclasses.replace(theirs, name=name))
    if gold is not None and config.kind != "gold":
        labels.append(Labels("gold", votes_of(GoldAnnotator().judge(pairs))[None]))
    reports = [describe_annotator(one, pairs, gold) for one in labels]
    between = {}
    for one, other_labels in itertools.combinations(labels, 2):
        agreement = inter_annotator_agreement(_decided(np.stack([one.votes[0], other_labels.votes[0]])))
        if agreement is not None:
            between[f"{one.name}, {other_labels.name}"] = agreement
    notes = list(dict.fromkeys(name for one in labels for name in one.notes))
    facts = write_report(folder, reports, pairs, between, notes)
    say(f"{annotator.name}: {written:,} labels of {len(pairs):,} pairs")
    return facts | {"labels": written, "annotator": annotator.name}


def _labels_of(
    annotator: Annotator,
    judged: Sequence[Judgement],
    config: FeedbackConfig,
    pairs: Sequence[Comparison],
    outputs: Path | str,
    repeats: int,
) -> Labels:
    """What `annotator`, of these settings, has `judged`; of simulated people also the labels of others of the kind."""
    votes = [votes_of(judged)]
    if config.kind == "simulated":
        votes += [
            votes_of(build_annotator(other_people(config, number), outputs, pairs).judge(pairs))
            for number in range(1, repeats)
        ]
    if not isinstance(annotator, LanguageModelAnnotator):
        return Labels(annotator.name, np.stack(votes), config.label_price * 1000)
    costs = annotator.costs
    notes = {
        "questions asked": costs.asked,
        "questions answered before": costs.cached,
        "nonsense replies": costs.nonsense,
        "contradictions when turned round": costs.contradictions,
        "dollars spent now": costs.dollars,
    }
    return Labels(annotator.name, np.stack(votes), costs.dollars_per_thousand, notes)


def gold_differences(pairs: Sequence[Comparison]) -> Votes | None:
    """Gold reward of the first less that of the second completion, (n,); None where a prompt has no gold reward."""
    if not all("answer" in one.facts for one in pairs):
        return None
    return np.array([gold_of(one.facts, one.first) - gold_of(one.facts, one.second) for one in pairs]).round(9)


def pairs_of_file(path: str) -> list[Comparison]:
    """The pairs of a preference file, to be judged again. Which completion stands first is drawn by the pair's own
    digest: the old label shows nothing. Raises `StageError` that names a damaged line."""
    pairs = [comparison_of(row) for row in read_preferences(path)]
    return [one if int(one.key[:8], 16) % 2 else one.swapped() for one in pairs]


def record_annotation(
    folder: Path, settings: Mapping[str, Any], kind: str, outputs: str, tracking: TrackingConfig
) -> None:
    """The first annotator's numbers and shares, and the figures, as a run in the tracker."""
    facts: Mapping[str, Any] = read_manifest(folder).facts["annotators"][0]
    metrics = {name: float(one) for name, one in facts.items() if isinstance(one, int | float)}
    metrics |= {name: one["value"] for name, one in facts.items() if isinstance(one, dict) and "value" in one}
    with start_run(
        tracking, outputs=Path(outputs), name=f"annotate-{kind}", folder=folder, params=settings,
        tags={"kind": "annotate"},
    ) as log:  # fmt: skip
        log.log_metrics({f"annotation/{name.replace(' ', '_')}": value for name, value in metrics.items()}, 0)
        if (folder / "figures").is_dir():  # not of every annotator
            log.log_artifact(folder / "figures")


def _decided(votes: Votes) -> Votes:
    """Votes with the undecided taken out: a tie agrees with nobody."""
    return np.where(votes == 0.5, np.nan, votes)
