"""Learning-rate sweeps: the best rate of each width, how it moves, and the picture."""

import math
from pathlib import Path

import numpy as np
import pytest

from maquette.reports.figures import save_figure
from maquette.scaling import LawError
from maquette.scaling.fits.rate_figure import best_rates, draw_rates, drift


def sweep(exponent: float, rates: tuple[float, ...] = (0.25, 0.5, 1, 2, 4)) -> tuple[list[float], ...]:
    """Loss curves whose best rates are 0.01 (width / 32)^exponent."""
    rows = [
        (width, rate, 3.0 * (32 / width) ** 0.1 * math.exp(0.02 * math.log(rate / best) ** 2))
        for width in (32, 64, 128)
        for best in [0.01 * (width / 32) ** exponent]
        for rate in [0.01 * multiple for multiple in rates]
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("exponent", [-0.4, 0.0, 0.3])
def test_the_best_rates_are_found(exponent: float) -> None:
    best = best_rates(*sweep(exponent))
    assert [one.width for one in best] == [32, 64, 128]
    assert [one.rate for one in best] == pytest.approx([0.01 * (w / 32) ** exponent for w in (32, 64, 128)], rel=0.02)
    assert drift(best) == pytest.approx(exponent, abs=0.02)


def test_a_best_at_the_edge_says_nothing_of_the_drift() -> None:
    best = best_rates(*sweep(2.0))
    assert best[-1].edge == "largest"
    assert math.isnan(drift(best[-1:]))


def test_the_picture(tmp_path: Path) -> None:
    figure = draw_rates(*sweep(0.0), title="muP")
    (axes,) = figure.axes
    assert "width^" in axes.get_title(loc="left") and "learning rate" in axes.get_xlabel()
    assert len(axes.get_legend().get_texts()) == 3
    assert save_figure(figure, tmp_path / "rates").stat().st_size > 10_000


def test_bad_columns_are_refused() -> None:
    with pytest.raises(LawError, match="loss is nan in row 1"):
        draw_rates([32, 32], [0.1, 0.2], [3.0, np.nan])
