"""The next token, to be looked at: how sure a model is at a place of a text, what it finds likeliest there, and what
greedy choice, temperature, top-k and top-p make of that.

All in bits (base 2): the entropy of a prediction, and the surprise at a token, -log2 of its probability. The
distribution after truncation is the one that sampling draws from (`sampling.distribution`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.model.heads import LanguageModel, evaluation_mode
from maquette.model.likelihoods import require_finite
from maquette.model.sampling import Sampling, distribution

_LOGITS = 2**22  # at once


@dataclass(frozen=True)
class TextEntropy:
    """A model's predictions along a text of n tokens, in bits: `surprises` at each token but the first, (n - 1,);
    `entropies` of the prediction after each, (n,)."""

    surprises: tuple[float, ...]
    entropies: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """A token with its `probability` under the model, and `drawn`, the one with which sampling chooses it."""

    token: int
    probability: float
    drawn: float


@dataclass(frozen=True)
class Truncation:
    """What a setting leaves: so many `tokens`, which had this `probability` under the model, and the `entropy` in bits
    of what is drawn from."""

    setting: str
    tokens: int
    probability: float
    entropy: float


@dataclass(frozen=True)
class NextToken:
    """The prediction at one place: its `entropy` in bits, the likeliest tokens first, and what each setting leaves."""

    entropy: float
    candidates: tuple[Candidate, ...]
    truncations: tuple[Truncation, ...]

    @property
    def others(self) -> float:
        """Probability of all tokens that are not among the candidates."""
        return max(0.0, 1.0 - math.fsum(one.probability for one in self.candidates))


@torch.inference_mode()
def read_text(model: LanguageModel, ids: Sequence[int]) -> TextEntropy:
    """Surprise and entropy along a text. Raises as `next_token`."""
    surprises, entropies = [], []
    hidden = _hidden(model, ids)
    step = max(1, _LOGITS // model.config.vocab_size)
    for first in range(0, len(ids), step):
        log_probs = model.logits(hidden[first : first + step]).double().log_softmax(dim=-1)
        require_finite(log_probs)
        entropies.append(_entropy(log_probs.exp()))
        following = torch.tensor(list(ids[first + 1 : first + 1 + step]), dtype=torch.int64, device=hidden.device)
        surprises.append(-log_probs[: len(following)].gather(1, following[:, None])[:, 0] / math.log(2))
    return TextEntropy(tuple(torch.cat(surprises).tolist()), tuple(torch.cat(entropies).tolist()))


@torch.inference_mode()
def next_token(model: LanguageModel, ids: Sequence[int], sampling: Sampling, count: int = 10) -> NextToken:
    """The prediction after `ids`, with the `count` likeliest tokens.

    Raises `ConfigError` where there is no token or more than the model reads, `StageError` for logits that are NaN."""
    logits = model.logits(_hidden(model, ids)[-1:]).float()
    require_finite(logits)
    probabilities = distribution(logits, Sampling(temperature=1.0))[0]
    drawn = distribution(logits, sampling)[0]
    values, tokens = probabilities.topk(min(count, len(probabilities)))
    candidates = zip(tokens.tolist(), values.tolist(), drawn[tokens].tolist(), strict=True)
    return NextToken(
        float(_entropy(probabilities)),
        tuple(Candidate(*one) for one in candidates),
        tuple(_truncation(name, probabilities, distribution(logits, one)[0]) for name, one in _alone(sampling)),
    )


def _alone(sampling: Sampling) -> Iterator[tuple[str, Sampling]]:
    """Greedy choice, each setting by itself, and all of them together where they are several."""
    whole = Sampling(temperature=1.0)
    yield "as predicted", whole
    yield "greedy", Sampling(temperature=0.0)
    if sampling.greedy:
        return
    chosen = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    changed = {name: value for name, value in chosen.items() if value is not None and value != getattr(whole, name)}
    for name, value in changed.items():
        yield f"{name}={value:g}", replace(whole, **{name: value})
    if len(changed) > 1:
        yield "together", replace(sampling, repetition_penalty=1.0)


def _truncation(setting: str, probabilities: Tensor, drawn: Tensor) -> Truncation:
    left = drawn > 0
    return Truncation(setting, int(left.sum()), float(probabilities[left].sum()), float(_entropy(drawn)))


def _entropy(probabilities: Tensor) -> Tensor:
    """`(..., V)` -> `(...)`, in bits (Shannon 1948, section 6)."""
    return torch.special.entr(probabilities).sum(dim=-1) / math.log(2)


def _hidden(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """`(n, D)`"""
    context = model.config.max_position_embeddings
    if not 1 <= len(ids) <= context:
        raise ConfigError(
            f"The text has {len(ids):,} tokens; the model reads from 1 to {context:,}.",
            "Shorten it." if ids else "Begin with the token that begins a document.",
        )
    with evaluation_mode(model):
        return model.core(torch.tensor([list(ids)], device=model.head_weight.device))[0]


@dataclass(frozen=True)
class Beam:
    """A continuation: its tokens with the log-probability of each, in nats."""

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    @property
    def log_prob(self) -> float:
        return math.fsum(self.log_probs)


@torch.inference_mode()
def beam_search(
    model: LanguageModel, ids: Sequence[int], *, beams: int, max_tokens: int, stop_ids: Sequence[int] = ()
) -> list[Beam]:
    """The likeliest continuations that a search with so many beams finds, likeliest first (Sutskever et al. 2014,
    section 3.2). A beam that has ended in one of `stop_ids` keeps its place; the context's end ends all.

    Each step reads the whole text again: for the few tokens of a picture. Raises as `next_token`.
    """
    hypotheses = [Beam()]
    ends = frozenset(stop_ids)
    for _ in range(min(max_tokens, model.config.max_position_embeddings - len(ids) + 1)):
        ended = [beam for beam in hypotheses if beam.tokens and beam.tokens[-1] in ends]
        open_beams = [beam for beam in hypotheses if beam not in ended]
        if not open_beams:
            break
        grown = list(ended)
        for beam in open_beams:
            for one in next_token(model, [*ids, *beam.tokens], Sampling(), count=beams).candidates:
                log_prob = math.log(max(one.probability, 1e-300))
                grown.append(Beam((*beam.tokens, one.token), (*beam.log_probs, log_prob)))
        hypotheses = sorted(grown, key=lambda beam: -beam.log_prob)[:beams]
    return hypotheses


@dataclass(frozen=True)
class Branch:
    """Tokens that some beams have in common, with the log-probability of each in nats; `whole`: that of the beam that
    ends here, None where they part; `best`: whether the likeliest beam goes this way."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    whole: float | None
    best: bool
    branches: tuple["Branch", ...]


def beam_tree(beams: Sequence[Beam]) -> tuple[Branch, ...]:
    """Beams, the likeliest first, as a tree: what they have in common stands once."""
    return _branches(beams, 0, beams[0] if beams else Beam())


def _branches(beams: Sequence[Beam], depth: int, best: Beam) -> tuple[Branch, ...]:
    groups: dict[int, list[Beam]] = {}
    for beam in beams:
        if depth < len(beam.tokens):
            groups.setdefault(beam.tokens[depth], []).append(beam)
    branches = []
    for group in groups.values():
        first, end = group[0], depth + 1
        while end < len(first.tokens) and all(one.tokens[: end + 1] == first.tokens[: end + 1] for one in group):
            end += 1
        whole = first.log_prob if end == len(first.tokens) else None
        rest = _branches(group, end, best)
        branches.append(Branch(first.tokens[depth:end], first.log_probs[depth:end], whole, best in group, rest))
    return tuple(branches)
