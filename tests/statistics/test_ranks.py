"""Rank intervals on cases small enough to rank by hand."""

import numpy as np

from maquette.statistics import rank_intervals


def test_ranks_by_hand() -> None:
    samples = np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.5, 1.0], [3.0, 2.0, 1.0]])
    assert rank_intervals([3.0, 2.0, 1.0], samples, 0.5) == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    assert rank_intervals([3.0, 2.0, 1.0], samples, 0.9) == [(1, 1, 2), (2, 1, 2), (3, 3, 3)]


def test_ties_share_the_best_rank() -> None:
    assert [r.rank for r in rank_intervals([1.0, 2.0, 2.0], np.array([[1.0, 2.0, 2.0]]))] == [3, 1, 1]


def test_contenders_that_move_together_keep_their_order() -> None:
    generator = np.random.default_rng(0)
    shared = 5 * generator.standard_normal((500, 1))
    samples = shared + np.array([0.2, 0.1, 0.0]) + 0.01 * generator.standard_normal((500, 3))
    assert rank_intervals([0.2, 0.1, 0.0], samples) == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
