"""The recipe: from one dial, the size, to every hyperparameter of a run. Pure arithmetic, free of torch.

`shape.py` turns a size into a width, a depth and heads. Here are the rest, and the run as a whole:

- learning rate = 0.38 / width^1.1 x (batch / 512 tokens)^(1/4)
- batch = 512 tokens up to four million tokens of training, from there growing with D^0.71; fewer below half a million,
  so that there are a thousand steps
- warm-up over a tenth of the tokens, at least 300 steps and at most 5,000; weight decay 0.1

The constants and their sources are `rules.HyperparameterRules`; `recipe=` chooses or replaces them (recipe_file.py).
Whatever is set explicitly is respected, and what depends on it follows.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import parse_quantity
from maquette.data.config import PhaseConfig
from maquette.model.architecture import TransformerConfig
from maquette.model.config import ModelConfig
from maquette.model.core_config import CoreConfig, FlopCount, ParameterCount, count_parameters, training_flops
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.recipe.rules import DEFAULT_RULES, HyperparameterRules
from maquette.recipe.shape import choose_shape

TOKENS_PER_PARAMETER = 20.0
"""Of a run whose budget is not given (Hoffmann et al. 2022, section 3.4)."""


@dataclass(frozen=True)
class Recipe:
    """A run's every number. `tokens` is a whole number of steps of `batch_size_tokens`; `warmup` a share of the
    tokens."""

    architecture: CoreConfig
    parameters: ParameterCount
    tokens: int
    steps: int
    batch_size_tokens: int
    learning_rate: float
    warmup: float
    weight_decay: float
    flops: FlopCount
    parametrization: Parametrization = STANDARD

    @property
    def size(self) -> int:
        """N: parameters of core and head."""
        return self.parameters.core + self.parameters.head

    @property
    def compute(self) -> int:
        """C: exact training FLOPs."""
        return self.flops.total

    @property
    def kaplan_compute(self) -> int:
        """6 N D with the core's parameters alone."""
        return 6 * self.parameters.core * self.tokens  # as `kaplan_compute`, without counting again


def resolve(
    *,
    size: str | float,
    vocab_size: int,
    sequence_length: int,
    tokens: str | float | None = None,
    compute: str | float | None = None,
    tokens_per_parameter: float | None = None,
    model: ModelConfig | None = None,
    architecture: CoreConfig | None = None,
    batch_size_tokens: int | None = None,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    phases: Sequence[PhaseConfig] = (),
    rules: HyperparameterRules = DEFAULT_RULES,
) -> Recipe:
    """The recipe of a model of `size` parameters (core and head) over a vocabulary, in sequences of `sequence_length`
    tokens.

    The token budget is `tokens`, or what `compute` FLOPs pay for, or `tokens_per_parameter` x N (20 N). Settings left
    None follow from the rules; `model` may fix any part of the shape. `architecture` fixes all of it (training that
    resumes from a checkpoint); `size` then has no say. `phases` may lengthen the context.

    Raises `ConfigError` where settings contradict each other or the size can't be reached.
    """
    if tokens is not None and compute is not None:
        raise ConfigError("tokens and compute are both given.", "Each sets the token budget: leave one of them out.")
    multiples = [1, *(phase.context_multiple for phase in phases)]
    longest, whole = sequence_length * max(multiples), sequence_length * math.lcm(*multiples)
    if architecture is None:
        architecture = choose_shape(
            model or ModelConfig(), parse_quantity(size, "size"), vocab_size=vocab_size, context=longest
        )
    elif architecture.max_position_embeddings < longest:
        if getattr(architecture, "positions", None) == "learned":
            raise ConfigError(
                f"data.sequence_length={longest} is more than the {architecture.max_position_embeddings} learned "
                "positions "
                "of checkpoint.",
                f"Use data.sequence_length={architecture.max_position_embeddings} or less.",
            )
        architecture = architecture.with_context(longest)
    check_parametrization(architecture, rules)
    parameters = count_parameters(architecture)
    if tokens is not None:
        budget: float = parse_quantity(tokens, "tokens")
    elif compute is not None:
        each = training_flops_of(architecture, 1_000_000, sequence_length, phases).total / 1_000_000
        budget = parse_quantity(compute, "compute") / each
    else:
        budget = (tokens_per_parameter or TOKENS_PER_PARAMETER) * (parameters.core + parameters.head)
    batch = batch_size_tokens or _round_batch(min(rules.batch(budget), budget), whole)
    if batch % whole:
        raise ConfigError(
            f"data.batch_size_tokens={batch} is not a multiple of the longest sequence, {whole} tokens.",
            f"The nearest that is: {max(1, round(batch / whole)) * whole}.",
        )
    steps = max(1, round(budget / batch))
    return Recipe(
        architecture=architecture,
        parameters=parameters,
        tokens=steps * batch,
        steps=steps,
        batch_size_tokens=batch,
        learning_rate=_or(
            learning_rate, architecture.lr_multiplier * rules.peak_learning_rate(architecture.hidden_size, batch)
        ),
        warmup=_or(warmup, rules.warmup_share(steps)),
        weight_decay=_or(weight_decay, rules.weight_decay),
        flops=training_flops_of(architecture, steps * batch, sequence_length, phases),
        parametrization=rules.parametrization,
    )


def check_parametrization(architecture: CoreConfig, rules: HyperparameterRules) -> None:
    """Raises `ConfigError` where muP does not know how a matrix of the architecture grows with the width."""
    if rules.kind != "mup":
        return
    reason = ""
    if architecture.tie_word_embeddings:
        reason = "gives embedding and head rates of their own; with model.tie_word_embeddings=true they are one matrix"
    elif architecture.own_code and not isinstance(architecture, TransformerConfig):
        reason = f"knows which matrices of ours grow with the width; {architecture.description} is not ours"
    elif isinstance(architecture, TransformerConfig) and architecture.attention is not None:
        reason = f"scales the query matrices of our attention; {architecture.attention} is not ours"
    if reason:
        raise ConfigError(f"recipe=mup {reason}.", "Use recipe=standard.")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _round_batch(tokens: float, sequence: int) -> int:
    """A batch near `tokens` of whole sequences: their number has three binary digits at most (4, 5, 6, 7, 8, 10, 12
    ... 1792), so that it divides well among processes and micro-batches."""
    sequences = max(1.0, tokens / sequence)
    grain = 2 ** max(0, math.floor(math.log2(sequences)) - 2)
    return round(sequences / grain) * grain * sequence


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The same run over another number of optimiser steps."""
    flops = FlopCount(*(round(part * steps / recipe.steps) for part in dataclasses.astuple(recipe.flops)))
    return dataclasses.replace(recipe, steps=steps, tokens=steps * recipe.batch_size_tokens, flops=flops)


def training_flops_of(architecture: CoreConfig, tokens: int, context: int, phases: Sequence[PhaseConfig]) -> FlopCount:
    """Training FLOPs where phases may lengthen the sequences."""
    if not any(phase.context_multiple > 1 for phase in phases):
        return training_flops(architecture, tokens, context)
    ordered = sorted(phases, key=lambda phase: phase.start)
    starts = [0.0, *(phase.start for phase in ordered), 1.0]
    contexts = [context, *(context * phase.context_multiple for phase in ordered)]
    borders = [round(start * tokens) for start in starts]
    parts = [
        training_flops(architecture, end - start, length)
        for start, end, length in zip(borders, borders[1:], contexts, strict=False)
    ]
    return FlopCount(*(sum(values) for values in zip(*map(_parts, parts), strict=True)))


def _parts(count: FlopCount) -> tuple[Any, ...]:
    return dataclasses.astuple(count)
