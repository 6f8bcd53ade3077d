"""Kaplan's exponent out of Chinchilla's surface, by counting alone (Pearce and Song 2024)."""

import numpy as np
import pytest

from maquette.scaling import kaplan_convention, vocabulary_law
from maquette.scaling.laws.counting import KAPLAN_SIZES
from maquette.scaling.laws.power_law import PowerLaw
from maquette.scaling.laws.runs import LawError
from maquette.scaling.laws.surface import BESIROGLU_2024, HOFFMANN_2022, LossSurface


def test_pearce_and_song() -> None:
    # Their abstract: between 0.74 and 0.78, by Hoffmann's and by Besiroglu's surface.
    hoffmann, besiroglu = kaplan_convention(HOFFMANN_2022.surface), kaplan_convention(BESIROGLU_2024.surface)
    assert hoffmann.core_exponent == pytest.approx(0.74, abs=0.01)
    assert besiroglu.core_exponent == pytest.approx(0.78, abs=0.01)
    assert besiroglu.total_exponent == pytest.approx(0.513, abs=0.001)
    assert besiroglu.explained > 1
    assert besiroglu.params[[0, -1]] == pytest.approx(KAPLAN_SIZES, rel=1e-4)


def test_without_a_vocabulary_the_conventions_agree() -> None:
    shift = kaplan_convention(BESIROGLU_2024.surface, vocabulary=PowerLaw(1e-6, 1 / 3))
    assert shift.core_exponent == pytest.approx(shift.total_exponent, abs=1e-6)
    assert shift.explained == pytest.approx(0, abs=1e-5)


def test_large_models_agree_too() -> None:
    shift = kaplan_convention(BESIROGLU_2024.surface, sizes=(1e11, 1e13))
    assert shift.core_exponent == pytest.approx(shift.total_exponent, abs=0.01)


def test_a_familys_own_vocabulary_law() -> None:
    core = np.geomspace(1e5, 1e8, 6)
    law = vocabulary_law(core, 300 * core ** (1 / 3))
    assert (law.coefficient, law.exponent) == pytest.approx((300, 1 / 3))


def test_a_surface_that_tokens_hardly_lower_is_refused() -> None:
    flat = LossSurface(E=0.0, A=1e6, alpha=2.5, B=2.0, beta=1e-3)
    with pytest.raises(LawError, match="core sizes"):
        kaplan_convention(flat, sizes=(2e3, 3e4))
