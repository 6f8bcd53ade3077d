"""From a number of parameters to the shape of a model: one homogeneous family from ten thousand to a hundred billion.

Width is the family's only free number. Depth follows it slowly, head width even more slowly, and the feed-forward is a
fixed multiple of it, up to a small correction that brings N (core and head) to the size that was asked for. Of a
sparse model N counts what a token uses: its experts are together as wide as a dense model's feed-forward, so that both
cost the same compute, and the others come on top. Every member has at least two layers: with a single one a model
can't learn to copy from its context (Olsson et al. 2022).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from maquette.artifacts import ConfigError, MaquetteError
from maquette.artifacts.settings import is_dotted
from maquette.model.architecture import CustomConfig, LSTMConfig, MixtureOfExpertsConfig, TransformerConfig, is_gated
from maquette.model.config import ModelConfig
from maquette.model.core_config import CoreConfig, count_parameters
from maquette.model.experts_config import ExpertSettings

DEPTH_COEFFICIENT, DEPTH_EXPONENT = 0.345, 0.55
"""Layers = 0.345 width^0.55. Passes through 2 layers at width 24, 3 at 48 and 64, 4 at 80 (a sweep on two cores), 13
at 768 and 33 at 4096 (GPT-2 small has 12, LLaMA 7B 32)."""

FEWEST_LAYERS = 2
MOST_LAYERS = 512

GATED_RATIO, PLAIN_RATIO = 8 / 3, 4
"""Feed-forward width over width: three matrices of 8/3 weigh what two of 4 do (Shazeer 2020)."""

CORRECTION = 1.35
"""The feed-forward may be so many times wider or narrower to meet the size. The loss hardly feels it: in
Kaplan et al. 2020, figure 5, it varies by a few percent over a factor of ten, at a fixed number of parameters."""

NARROWEST_HEAD, WIDEST_HEAD = 16, 64
_HEAD_WIDTHS = ((128, 16), (512, 32), (2047, 64), (math.inf, 128))
"""Up to this width, heads of about this width. From 2048 on they are 128 wide: FlashAttention's products are then as
wide as a GPU's matrix units like them, and Llama 2 and 3, Mistral and Qwen3 have such heads."""

GROUPED_WIDTH, HEADS_PER_GROUP = 2048, 4
"""From this width on, as many heads share their keys and values (Ainslie et al. 2023), as in Llama 3 8B and Mistral 7B:
the cache of a long text is a quarter as large, for little loss. Smaller models are trained and read on short texts."""

_GRID = ((8, 16, 2), (16, 64, 4), (64, 128, 8), (128, 512, 16), (512, 1024, 64), (1024, 2048, 128), (2048, 32769, 512))
"""Widths of the family: from, to, step. From 2048 on a step is four heads."""

LSTM_LAYERS = 2
"""At every size: a stack without residual connections trains worse as it grows deeper (Kaplan et al. 2020, figure 7,
has LSTMs of one to four layers). So the family is homogeneous, and its size follows the width alone."""

_LSTM_GRID = ((8, 128, 1), (128, 512, 4), (512, 1024, 16), (1024, 4096, 64), (4096, 32769, 256))
"""Narrower steps: an LSTM has no feed-forward whose width could meet a size in between."""

_CUSTOM_SIZES = tuple(2500 * 2**step for step in range(18))
"""Sizes that a user's architecture is asked for, to see its family."""

_FEED_FORWARD_GRAINS = ((128, 4), (512, 16), (math.inf, 64))
"""Up to this width, feed-forwards are multiples of this: matrix products like round numbers."""


class SizeError(ConfigError):
    """No model of the family is that small, or that large: it reaches from `smallest` to `largest`."""

    def __init__(self, size: int, smallest: int, largest: int, vocab_size: int) -> None:
        self.reach = (
            f"with a vocabulary of {vocab_size:,}: models of this family have {smallest:,} to {largest:,} "
            "parameters (core and head)."
        )
        self.too_small = size < smallest
        super().__init__(
            f"size={size:,} can't be reached {self.reach}", "Choose a size in between, or another vocabulary."
        )


@dataclass(frozen=True)
class _Member:
    """One shape of the family and its N."""

    architecture: CoreConfig
    size: int


def choose_shape(model: ModelConfig, size: int, *, vocab_size: int, context: int) -> CoreConfig:
    """The shape of about `size` parameters (core and head) that keeps what `model` fixes.

    With the width fixed the depth follows the size, and the other way round; with both fixed `size` has no say.
    Raises `ConfigError` where no member of the family is that small, or what is fixed does not go together.
    """
    if is_dotted(model.kind):  # a user's architecture finds its own shape
        return _custom(model, size, vocab_size, context)
    shapes = family(model, vocab_size=vocab_size, context=context)
    members = [_Member(architecture, parameters_of(architecture)) for architecture in shapes]
    if len(members) == 1:
        return members[0].architecture
    if size < 0.8 * members[0].size or size > 1.25 * members[-1].size:
        raise SizeError(size, members[0].size, members[-1].size, vocab_size)
    nearest = min(range(len(members)), key=lambda index: abs(math.log(members[index].size / size)))
    neighbours = range(max(0, nearest - 1), min(len(members), nearest + 2))
    candidates = [member for index in neighbours for member in _corrected(model, members, index)]
    return min(candidates, key=lambda member: abs(math.log(member.size / size))).architecture


def family(model: ModelConfig, *, vocab_size: int, context: int) -> list[CoreConfig]:
    """Every shape that keeps what `model` fixes, by rising size, before the correction that meets a size.

    Raises `ConfigError` where there is none.
    """
    if is_dotted(model.kind):
        return _custom_family(model, vocab_size, context)
    shapes = [
        architecture
        for width in (_widths(model.kind) if model.hidden_size is None else [model.hidden_size])
        for depth in _depths(model, width)
        if (architecture := _build(model, width, depth, vocab_size, context)) is not None
    ]
    if not shapes:
        fixed = ", ".join(f"model.{name}={value}" for name, value in _fixed(model).items())
        raise ConfigError(
            f"No shape goes with {fixed}.", "Heads must divide the width; leave one of them to the recipe."
        )
    return shapes


def _custom(model: ModelConfig, size: int, vocab_size: int, context: int) -> CustomConfig:
    return CustomConfig(
        model.kind, vocab_size, size, context,
        tie_word_embeddings=model.tie_word_embeddings, logit_softcap=model.logit_softcap, settings=model.settings,
    )  # fmt: skip


def _custom_family(model: ModelConfig, vocab_size: int, context: int) -> list[CoreConfig]:
    """What a user's architecture makes of the sizes that it is asked for, from the smallest that it can."""
    configs: dict[int, CoreConfig] = {}
    failure: MaquetteError | None = None
    for size in _CUSTOM_SIZES:
        architecture = _custom(model, size, vocab_size, context)
        try:
            configs.setdefault(parameters_of(architecture), architecture)
        except MaquetteError as error:
            failure = error
    if not configs and failure is not None:
        raise failure
    return [configs[size] for size in sorted(configs)]


def _fixed(model: ModelConfig) -> dict[str, int]:
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
    )
    return {name: value for name in names if (value := getattr(model, name)) is not None}


def parameters_of(architecture: CoreConfig) -> int:
    """N: parameters of core and head."""
    count = count_parameters(architecture)
    return count.core + count.head


def _widths(kind: str) -> list[int]:
    return list(itertools.chain.from_iterable(range(*part) for part in (_LSTM_GRID if kind == "lstm" else _GRID)))


def _depths(model: ModelConfig, width: int) -> Iterator[int]:
    if model.num_hidden_layers is not None:
        yield model.num_hidden_layers
    elif model.kind == "lstm":
        yield LSTM_LAYERS
    elif model.hidden_size is not None:
        yield from range(FEWEST_LAYERS, MOST_LAYERS + 1)
    else:
        yield max(FEWEST_LAYERS, round(DEPTH_COEFFICIENT * width**DEPTH_EXPONENT))


def _build(model: ModelConfig, width: int, depth: int, vocab_size: int, context: int) -> CoreConfig | None:
    """The member of this width and depth; None where no heads go with it."""
    if model.kind == "lstm":
        return LSTMConfig(
            vocab_size, width, depth, context,
            tie_word_embeddings=model.tie_word_embeddings, logit_softcap=model.logit_softcap, dropout=model.dropout,
        )  # fmt: skip
    heads = _heads(model, width)
    if heads is None:
        return None
    kind = TransformerConfig if model.experts is None else functools.partial(MixtureOfExpertsConfig, **model.experts)
    return kind(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=_key_value_heads(model, width, heads),
        head_dim=model.head_dim,
        intermediate_size=model.intermediate_size or _feed_forward(model, width),
        max_position_embeddings=context,
        normalization=model.normalization,
        normalization_eps=model.normalization_eps,
        positions=model.positions,
        rope_theta=model.rope_theta,
        activation=model.activation,
        qk_norm=model.qk_norm,
        tie_word_embeddings=model.tie_word_embeddings,
        bias=model.bias,
        logit_softcap=model.logit_softcap,
        token_shift=model.token_shift,
        dropout=model.dropout,
        attention=model.attention,
        sliding_window=model.sliding_window,
        layer_types=None if model.layer_types is None else tuple(model.layer_types),
    )


def _heads(model: ModelConfig, width: int) -> int | None:
    """How many heads: as fixed, else such that each is 16 to 64 (in wide models 128) wide and even; None where that
    can't be."""
    shared = model.num_key_value_heads or 1
    if model.num_attention_heads is not None:
        fits = model.head_dim is not None or width % model.num_attention_heads == 0
        return model.num_attention_heads if fits and model.num_attention_heads % shared == 0 else None
    if model.head_dim is not None:
        return width // model.head_dim if width % (model.head_dim * shared) == 0 else None
    usual = next(head for limit, head in _HEAD_WIDTHS if width <= limit)
    possible = [
        head
        for head in ([width] if width < NARROWEST_HEAD else range(NARROWEST_HEAD, max(WIDEST_HEAD, usual) + 1))
        if head % 2 == 0 and width % (head * shared) == 0
    ]
    return width // min(possible, key=lambda head: max(head / usual, usual / head)) if possible else None


def _key_value_heads(model: ModelConfig, width: int, heads: int) -> int | None:
    """As fixed; else, where heads are the recipe's, one for every four in wide models. GPT-2, which learned positions
    make it, has no groups, and a user's attention layer may have none."""
    fixed = model.num_attention_heads or model.head_dim or model.attention or model.positions != "rotary"
    if model.num_key_value_heads is not None or fixed or width < GROUPED_WIDTH or heads % HEADS_PER_GROUP:
        return model.num_key_value_heads
    return heads // HEADS_PER_GROUP


def _feed_forward(model: ModelConfig, width: int, correction: float = 1.0) -> int:
    grain = next(grain for limit, grain in _FEED_FORWARD_GRAINS if width <= limit)
    ratio = GATED_RATIO if is_gated(model.activation) else PLAIN_RATIO
    if model.experts is not None:  # those that a token goes through are together as wide
        ratio /= ExpertSettings(**model.experts).active_experts
    return max(1, round(ratio * correction * width / grain)) * grain


def _corrected(model: ModelConfig, family: list[_Member], index: int) -> Iterator[_Member]:
    """A member with its feed-forward as wide as it may be, as long as its size stays nearer to its own than to its
    neighbours': so width and size never fall as the size asked for rises."""
    member = family[index]
    yield member
    architecture = member.architecture
    if model.intermediate_size is not None or not isinstance(architecture, TransformerConfig):
        return
    lowest = math.sqrt(family[index - 1].size * member.size) if index else 0.0
    highest = math.sqrt(family[index + 1].size * member.size) if index + 1 < len(family) else math.inf
    width = architecture.hidden_size
    grain = next(grain for limit, grain in _FEED_FORWARD_GRAINS if width <= limit)
    narrowest, widest = (_feed_forward(model, width, correction) for correction in (1 / CORRECTION, CORRECTION))
    for feed_forward in range(narrowest, widest + 1, grain):
        other = dataclasses.replace(architecture, intermediate_size=feed_forward)
        if lowest < (size := parameters_of(other)) < highest:
            yield _Member(other, size)
