"""How narrow and how well calibrated policies are: by hand, and of a policy whose distribution is known."""

import math

import numpy as np
import pytest
import torch

from maquette.feedback.study.diversity import (
    SAMPLES,
    calibration_error,
    distinct_ngrams,
    distinct_share,
    measure_diversity,
)
from maquette.objectives.completions import completion_kl, completion_likelihoods, sample_completions
from support.policies import TOKENIZER, Prompts, tiny_model

PROMPTS = [Prompts()[number] for number in range(6)]


def test_shares_of_different_completions() -> None:
    assert distinct_share([["a", "b"], ["a", "a"]]) == 0.75
    assert distinct_ngrams(["one two three", "One, two!", "four"]) == pytest.approx(2 / 3)
    assert distinct_ngrams(["one", ""]) is None


def test_calibration_by_hand() -> None:
    """Two answers at 0.8, one right: 0.3 off; two at 0.25, none right: 0.25 off."""
    log_probs = np.log([0.8, 0.8, 0.25, 0.25])
    assert calibration_error(log_probs, [1.0, 0.97, 0.0, 0.5]) == pytest.approx((0.3 + 0.25) / 2)
    assert calibration_error([0.0, 1e-7], [1.0, 1.0]) == pytest.approx(0.0, abs=1e-6)  # rounded above 1


def test_likelihoods_are_those_of_the_logits() -> None:
    model = tiny_model(scale=3.0)
    completions = sample_completions(model, TOKENIZER, PROMPTS, max_tokens=5)
    log_probs, entropies = completion_likelihoods(model, completions, batch=4)
    for one, log_prob, entropy in zip(completions, log_probs, entropies, strict=True):
        tokens = torch.tensor([[*one.prompt_ids, *one.answer_ids]])
        with torch.no_grad():
            spread = model(tokens)[0, len(one.prompt_ids) - 1 : -1].double().log_softmax(-1)
        chosen = spread.gather(1, torch.tensor(one.answer_ids)[:, None]).sum()
        assert log_prob == pytest.approx(float(chosen), abs=1e-4)
        assert entropy == pytest.approx(-float((spread.exp() * spread).sum()), abs=1e-4)
    assert np.abs(completion_kl(model, model, completions)).max() == 0.0


def test_a_policy_that_is_sure_and_one_that_is_not() -> None:
    """With its head at zero every token is as likely: the entropy is known. With a huge one there is one completion."""
    flat, sure = tiny_model(), tiny_model()
    with torch.no_grad():
        flat.head_weight.zero_()
        sure.head_weight.mul_(1e4)
    measured = []
    for model in (flat, sure):
        greedy = sample_completions(model, TOKENIZER, PROMPTS, max_tokens=4, temperature=0.0)
        measured.append(
            measure_diversity(model, TOKENIZER, PROMPTS, greedy, np.zeros(len(PROMPTS)), max_tokens=4)
        )  # fmt: skip
    assert measured[0].distinct == 1.0 and measured[1].distinct == 1 / SAMPLES
    assert measured[1].entropy == pytest.approx(0.0, abs=1e-3)
    # a completion ends at its first end of turn, so it has four tokens at most
    assert 3.5 * math.log(TOKENIZER.vocab_size) < measured[0].entropy <= 4 * math.log(TOKENIZER.vocab_size) + 1e-6
    assert measured[0].calibration_error is not None and measured[0].calibration_error < 0.01
    assert measured[1].calibration_error == pytest.approx(1.0, abs=1e-3)  # it is sure, and never right
    greedy = sample_completions(sure, TOKENIZER, PROMPTS, max_tokens=4, temperature=0.0)
    assert measure_diversity(sure, TOKENIZER, PROMPTS, greedy, None, max_tokens=4).calibration_error is None
