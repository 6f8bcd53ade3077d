"""How good a model is: baselines to beat, likelihoods, questions, win rates and ratings, each with its interval."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.evaluation.aggregation import Standing, standings
    from maquette.evaluation.baselines import BaselineScore, bits_per_byte, score_baselines
    from maquette.evaluation.contamination import ContaminationTest, contamination_test
    from maquette.evaluation.judges import Agreement, agreement, pairwise_agreement, rank_agreement
    from maquette.evaluation.length_control import WinRate, length_controlled_win_rate
    from maquette.evaluation.ngrams import KneserNey
    from maquette.evaluation.overlap import ngram_overlap
    from maquette.evaluation.pairwise import PairwiseResult, battles, compare_answers
    from maquette.evaluation.ratings import Ratings, bradley_terry_ratings, topic_shares, topic_weights
    from maquette.evaluation.style import style_covariates

_HOMES = {
    "aggregation": ("Standing", "standings"),
    "judges": ("Agreement", "agreement", "pairwise_agreement", "rank_agreement"),
    "baselines": ("BaselineScore", "bits_per_byte", "score_baselines"),
    "contamination": ("ContaminationTest", "contamination_test"),
    "length_control": ("WinRate", "length_controlled_win_rate"),
    "ngrams": ("KneserNey",),
    "overlap": ("ngram_overlap",),
    "pairwise": ("PairwiseResult", "battles", "compare_answers"),
    "style": ("style_covariates",),
    "ratings": ("Ratings", "bradley_terry_ratings", "topic_shares", "topic_weights"),
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
