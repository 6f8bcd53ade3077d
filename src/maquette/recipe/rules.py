"""The constants of the recipe (`conf/recipe/*.yaml`, or a file that a fit has written), and of the sweeps that follow
it (`conf/sweep/*.yaml`). Settings alone, which start in no time."""

from dataclasses import dataclass
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import parse_quantity, setting
from maquette.model.parametrization import Parametrization

_LONGEST_WARMUP = 0.3
"""Share of a run that `min_warmup_steps` may take."""


@dataclass
class HyperparameterRules:
    """The constants of the recipe. Fitted on one's own runs, they replace `DEFAULT_RULES`.

    learning rate = `learning_rate` x width^`lr_width_exponent` x
    (batch / `base_batch_size_tokens`)^`lr_batch_exponent`;
    batch = `base_batch_size_tokens` x max(1, D / `base_tokens`)^`batch_tokens_exponent`, in tokens,
    and at most D / `min_steps`.
    """

    kind: str = setting(
        "standard",
        "standard: one rate for all parameters; mup: initial weights and rates of each kind follow the width",
        choices=("standard", "mup"),
    )

    learning_rate: float = setting(0.38, "learning rate at width 1 and base_batch_size_tokens", minimum=0.0)
    """0.0084 at width 32. Fitted to runs of 20k to 180k parameters that warm up for long enough
    (benchmarks/rate_grid.py): there .0086 (90%: .0063 to .0119). Half or double costs 0.1 to 3% of the loss."""

    lr_width_exponent: float = setting(-1.1, "exponent of the learning rate in the width")
    """Between -1.41 and -.38 by the same runs (90%), -1 for hidden matrices under Adam in the maximal-update
    parametrisation (Yang et al. 2022, table 8). This one leads to the rates of large models below. Over the tokens
    of a run the best rate goes as D^-.15 (-.44 to .14), which is left out: batches grow with D."""

    lr_batch_exponent: float = setting(0.25, "exponent of the learning rate in the batch")
    """Between none and the square root (Malladi et al. 2022). With it the recipe is within a factor of two of what was
    used for OLMo 1B (4e-4), LLaMA 7B (3e-4) and LLaMA 65B (1.5e-4)."""

    base_batch_size_tokens: int = setting(512, "tokens in a step of short runs", minimum=1)
    """Four sequences of 128 tokens: what the sweep above used throughout, up to 4 million tokens."""

    base_tokens: float = setting(4e6, "token budget up to which the batch stays at base_batch_size_tokens", minimum=1.0)

    batch_tokens_exponent: float = setting(0.71, "exponent of the batch in the token budget, from there on")
    """From 512 tokens at D = 4e6 to the 6 million that Li et al. 2025 ("Step law", B = 0.58 D^0.571) find best at
    D = 2e12. Theirs and DeepSeek's (Bi et al. 2024, B = 0.292 C^0.327) grow more slowly but start far higher."""

    min_steps: int = setting(1_000, "the batch shrinks where a run would have fewer steps than this", minimum=1)
    """At 3e10 FLOPs and 16k parameters 1,760 steps of 128 tokens, 880 of 256 and 440 of 512 came to a loss of 4.671,
    4.681 and 4.889: with too few steps the cheapest runs lie above the law of the others, and bend it."""

    weight_decay: float = setting(0.1, "decoupled decay of matrices", minimum=0.0)
    """What every model named above used."""

    warmup: float = setting(0.1, "share of the tokens over which the rate rises", minimum=0.0, maximum=1.0)
    """The sweep above."""

    min_warmup_steps: int = setting(
        300, "warm-up takes at least so many steps, or three tenths of a short run", minimum=0
    )
    """Adam's mean of squared gradients looks back over 1 / (1 - beta2) = 100 steps, and twice that is the usual least
    (Ma and Yarats 2021, "On the adequacy of untuned warmup for adaptive optimization"). 60k parameters on 300k tokens
    (benchmarks/rate_grid.py): warming up for 117, 199, 293 and 469 of 1,172 steps to one rate, 5.013, 4.388, 4.311 and
    4.304."""

    max_warmup_steps: int = setting(5_000, "warm-up takes no more steps than this", minimum=0)
    """Beyond it warming up longer buys nothing (GPT-3 warmed up for 375 million tokens, LLaMA 2,000 steps)."""

    base_hidden_size: int = setting(32, "mup: the width at which it is the standard parametrisation", minimum=1)
    base_head_dim: int = setting(16, "mup: the width of a head at which it is", minimum=1)

    source: str = setting("the defaults", "where the constants are from")
    provenance: dict[str, Any] = setting(dict, "what a fitted recipe rests on: runs, intervals, date")

    def validate(self) -> None:
        """Raises `ConfigError` where muP's rates would follow the width twice."""
        if self.kind == "mup" and self.lr_width_exponent != 0:
            raise ConfigError(
                f"recipe.lr_width_exponent={self.lr_width_exponent:g} with recipe.kind=mup: the rate would "
                f"follow the width twice.",
                "Use recipe=mup, which has recipe.lr_width_exponent=0, or recipe.kind=standard.",
            )

    @property
    def parametrization(self) -> Parametrization:
        """How initial weights and rates depend on width."""
        if self.kind == "standard":
            return Parametrization()
        return Parametrization(self.kind, self.base_hidden_size, self.base_head_dim)

    def batch(self, tokens: float) -> float:
        """Tokens of one optimiser step of a run over `tokens` tokens."""
        law = self.base_batch_size_tokens * max(1.0, tokens / self.base_tokens) ** self.batch_tokens_exponent
        return min(law, tokens / self.min_steps)

    def peak_learning_rate(self, width: int, batch: float) -> float:
        """Peak learning rate of AdamW for a model `width` wide and a batch of `batch` tokens."""
        return (
            self.learning_rate
            * width**self.lr_width_exponent
            * (batch / self.base_batch_size_tokens) ** self.lr_batch_exponent
        )

    def warmup_share(self, steps: int) -> float:
        """Share of the tokens over which the rate rises, in a run of `steps` steps."""
        rising = max(self.warmup, min(_LONGEST_WARMUP, self.min_warmup_steps / steps))
        return min(rising, self.max_warmup_steps / steps)


DEFAULT_RULES = HyperparameterRules()


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
