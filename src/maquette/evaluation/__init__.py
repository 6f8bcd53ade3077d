"""How good a model is: baselines to beat, likelihoods, questions, win rates and ratings, each with its interval."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.evaluation.comparisons.judges import Agreement, agreement, pairwise_agreement, rank_agreement
    from maquette.evaluation.comparisons.length_control import WinRate, length_controlled_win_rate
    from maquette.evaluation.comparisons.pairwise import PairwiseResult, battles, compare_answers
    from maquette.evaluation.contamination import ContaminationTest, contamination_test, ngram_overlap
    from maquette.evaluation.likelihood.baselines import BaselineScore, bits_per_byte, score_baselines
    from maquette.evaluation.likelihood.ngrams import KneserNey
    from maquette.evaluation.ratings.ratings import Ratings, bradley_terry_ratings, topic_shares, topic_weights
    from maquette.evaluation.ratings.style import style_covariates
    from maquette.evaluation.suites.aggregation import Standing, standings

_HOMES = {
    "suites.aggregation": ("Standing", "standings"),
    "comparisons.judges": ("Agreement", "agreement", "pairwise_agreement", "rank_agreement"),
    "likelihood.baselines": ("BaselineScore", "bits_per_byte", "score_baselines"),
    "contamination": ("ContaminationTest", "contamination_test", "ngram_overlap"),
    "comparisons.length_control": ("WinRate", "length_controlled_win_rate"),
    "likelihood.ngrams": ("KneserNey",),
    "comparisons.pairwise": ("PairwiseResult", "battles", "compare_answers"),
    "ratings.style": ("style_covariates",),
    "ratings.ratings": ("Ratings", "bradley_terry_ratings", "topic_shares", "topic_weights"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agreement",
    "BaselineScore",
    "ContaminationTest",
    "KneserNey",
    "PairwiseResult",
    "Ratings",
    "Standing",
    "WinRate",
    "agreement",
    "battles",
    "bits_per_byte",
    "bradley_terry_ratings",
    "compare_answers",
    "contamination_test",
    "length_controlled_win_rate",
    "ngram_overlap",
    "pairwise_agreement",
    "rank_agreement",
    "score_baselines",
    "standings",
    "style_covariates",
    "topic_shares",
    "topic_weights",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
