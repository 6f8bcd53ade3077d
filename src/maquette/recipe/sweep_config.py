"""Settings of sweeps: `conf/sweep/*.yaml`. Free of torch."""

from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import parse_quantity, setting


@dataclass
class SweepConfig:
    """What `hydra.sweeper.params` can't say, because it depends on the size, the budget or the recipe."""

    budgets: list[str] = setting(list, "IsoFLOP curves: training FLOPs of each")
    sizes_per_budget: int = setting(5, "sizes on each curve, around the one the recipe expects to be best", minimum=3)
    ratio: float = setting(1.5, "each size on a curve is so many times the one before", minimum=1.05)
    mixtures: int = setting(
        0, "mixtures to try, drawn from all there are, beside the uniform and the size-proportional one", minimum=0
    )
    rates: list[float] = setting(list, "learning rates to try, as multiples of the recipe's")
    rate_pairs: bool = setting(
        False,
        "beside the smallest job and the largest that costs little, two at half and twice the learning rate: what the "
        "recipe's rate costs there",
    )
    branches: bool = setting(
        False, "with scheduler=wsd: one trunk per size, from which a cooldown branches off for each of its budgets"
    )
    bias: bool = setting(
        True, "with sweep.branches: one size is also trained with schedules of its own, to measure what branches cost"
    )

    def validate(self) -> None:
        """Raises `ConfigError` for budgets that are none, and rates that are not above zero."""
        for budget in self.budgets:
            parse_quantity(budget, "sweep.budgets")
        for multiple in self.rates:
            if not multiple > 0:
                raise ConfigError(f"sweep.rates has {multiple:g}.", "Each multiplies the recipe's learning rate.")

    @property
    def is_given(self) -> bool:
        """Whether it asks for more than one run."""
        return bool(self.budgets or self.rates or self.branches or self.mixtures or self.rate_pairs)
