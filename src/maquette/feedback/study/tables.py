"""The studies in a store as tables for notebooks: policies, best-of-n, and the curve of every policy that samples.

policies, best_of_n, curve = study_tables("outputs", "Alignment")
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maquette.artifacts.errors import StageError
from maquette.artifacts.reading import load_sealed
from maquette.feedback.study.measurement import Measurement, read_measurement
from maquette.tracking import find_runs

if TYPE_CHECKING:
    import pandas as pd

RESULTS, CURVES = "results.json", "curves.json"
"""Files of a study: its measurement; and by policy, rows of step, kl, gold, reward and words at each validation."""


class StudyTables(NamedTuple):
    """A row each: of `policies` a seed and policy, of `best_of_n` a seed and n (by the first reward model), of `curve`
    a validation of a seed's policy. Rewards are means over completions, KL divergence is in nats a completion."""

    policies: "pd.DataFrame"
    best_of_n: "pd.DataFrame"
    curve: "pd.DataFrame"


def study_tables(outputs: Path | str = "outputs", title: str = "Alignment", *, uri: str | None = None) -> StudyTables:
    """The newest study of this title for each seed, as the tracker knows them.

    Raises `StageError` where there is none, or its folder is gone."""
    import pandas as pd

    runs = find_runs(outputs, uri=uri)
    if "tags.kind" in runs.columns:
        runs = runs[(runs["tags.kind"] == "alignment") & (runs["name"] == title) & (runs["status"] == "FINISHED")]
    if "tags.kind" not in runs.columns or runs.empty:
        raise StageError(
            f"{outputs} has no study called {title}.", "Make one: maquette alignment +experiment=alignment"
        )
    newest = runs.drop_duplicates("seed").sort_values("seed")
    studies = [(int(seed), Path(folder)) for seed, folder in zip(newest["seed"], newest["folder"], strict=True)]
    measured = [(seed, read_measurement(folder / RESULTS)) for seed, folder in studies]
    return StudyTables(
        pd.DataFrame([row for seed, one in measured for row in _policies(seed, one)]),
        pd.DataFrame([row for seed, one in measured for row in _best_of_n(seed, one)]),
        pd.DataFrame([row for seed, folder in studies for row in _curve(seed, folder)]),
    )


def _policies(seed: int, one: Measurement) -> Iterator[dict[str, Any]]:
    learned = next((name for name in one.policies[0].scores if name != "gold"), None)
    for policy in one.policies:
        gold, wins, greedy = policy.scores["gold"], policy.wins["gold"], policy.greedy_wins["gold"]
        yield {
            "seed": seed, "policy": policy.name, "kl": policy.kl, "words": policy.words,
            "ended": policy.ended,
            "gold": gold.value, "gold_low": gold.low, "gold_high": gold.high,
            "reward": None if learned is None else policy.scores[learned].value,
            "greedy_gold": policy.greedy["gold"].value,
            "wins": wins.value, "wins_low": wins.low, "wins_high": wins.high,
            "greedy_wins": greedy.value, "greedy_wins_low": greedy.low, "greedy_wins_high": greedy.high,
            "flops": policy.flops, "seconds": policy.seconds,
            **({} if policy.diversity is None else dataclasses.asdict(policy.diversity)),
        }  # fmt: skip


def _best_of_n(seed: int, one: Measurement) -> Iterator[dict[str, Any]]:
    for curve in one.best_of_n[:1]:
        for place, n in enumerate(curve.n):
            yield {
                "seed": seed, "n": n, "kl": curve.kl[place], "gold": curve.scores["gold"][place],
                "reward": curve.scores[curve.reward][place], "words": curve.words[place],
            }  # fmt: skip


def _curve(seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / CURVES
    curves_by_policy: Mapping[str, list[dict[str, float]]] = load_sealed(path) if path.exists() else {}
    for policy, rows in curves_by_policy.items():
        for row in rows if isinstance(rows, list) else ():  # earlier versions put the fits of curves in their place
            yield {"seed": seed, "policy": policy, **row}
