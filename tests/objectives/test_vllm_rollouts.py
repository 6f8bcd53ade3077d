"""Rollouts by vLLM, with a stand-in of its interface: what is asked of it, and what the loss makes of its results."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, hf
from maquette.model.generation import generate
from maquette.model.sampling import Sampling
from maquette.objectives.losses import ppo_policy_loss, truncated_importance_weights
from maquette.objectives.rollouts import RolloutSchedule
from support.policies import TOKENIZER, tiny_model, tiny_ppo


class Engine:
    """`vllm.LLM` as far as it is used: samples with the weights that it has read from its folder, and says log-
    probabilities that are `off` lower."""

    off = 0.1

    def __init__(self, model: str, **settings: Any) -> None:
        self.folder, self.settings, self.calls = Path(model), settings, ["LLM"]
        self.model: LanguageModel = hf.load(self.folder)
        engines.append(self)

    def collective_rpc(self, method: str) -> None:
        assert method == "reload_weights"
        self.calls.append(method)
        self.model = hf.load(self.folder)

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def generate(self, prompts: Sequence[Any], params: Sequence[Any], *, use_tqdm: bool) -> list[Any]:
        self.calls.append("generate")
        results = []
        for prompt, one in zip(prompts, params, strict=True):
            (row,) = generate(
                self.model, [prompt["prompt_token_ids"]], sampling=Sampling(one.temperature), seeds=[one.seed],
                max_tokens=one.max_tokens, stop_ids=one.stop_token_ids,
            )  # fmt: skip
            likely = [
                {token: types.SimpleNamespace(logprob=log_prob - self.off)}
                for token, log_prob in zip(row.tokens, row.log_probs, strict=True)
            ]
            results.append(types.SimpleNamespace(
                outputs=[types.SimpleNamespace(token_ids=list(row.tokens), logprobs=likely)]
            ))  # fmt: skip
        return results


engines: list[Engine] = []
SCHEDULE = RolloutSchedule(8, 2, 2)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    engines.clear()
    module: Any = types.ModuleType("vllm")
    module.LLM = Engine
    module.SamplingParams = lambda **settings: types.SimpleNamespace(**settings)
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.usefixtures("vllm")
def test_the_policy_s_weights_are_sampled_and_corrected_for() -> None:
    """Engine and policy agree on tokens here; the advantages are those of own rollouts times the weights."""
    own, other = tiny_ppo(tiny_model(scale=3.0)), tiny_ppo(tiny_model(scale=3.0), rollout_backend="vllm")
    (expected, _), (rollouts, shown) = own.collect(0, SCHEDULE), other.collect(0, SCHEDULE)
    assert torch.equal(rollouts.tokens, expected.tokens)
    weight = float(torch.tensor(Engine.off).exp())
    assert torch.allclose(rollouts.advantages, expected.advantages * weight, atol=1e-4)
    assert torch.equal(rollouts.log_probs, expected.log_probs)
    assert shown["sampling/importance_sampling_ratio/mean"] == pytest.approx(weight, abs=1e-4)
    assert shown["sampling/sampling_logp_difference/mean"] == pytest.approx(Engine.off, abs=1e-4)
    with torch.no_grad():
        other.model.head_weight.mul_(0.5)
    other.collect(1, SCHEDULE)
    (engine,) = engines
    assert engine.calls == ["LLM", "generate", "reload_weights", "reset_prefix_cache", "generate"]
    assert torch.equal(engine.model.head_weight, other.model.head_weight)
    assert engine.settings["max_model_len"] == 48 and engine.settings["logprobs_mode"] == "processed_logprobs"


def test_weights_are_ratios_up_to_a_cap() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    drawn, log_ratio = torch.full((2, 3), -1.0), torch.tensor([[0.5, -0.25, 9.0], [3.0, 0.0, -0.5]])
    log_probs = drawn + log_ratio
    weights = truncated_importance_weights(log_probs, drawn, mask)
    expected = torch.tensor([[0.5, -0.25, -torch.inf], [3.0, 0.0, -0.5]]).exp().clamp(max=2.0)
    assert torch.allclose(weights, expected)
    whole = truncated_importance_weights(log_probs, drawn, mask, ratio="completion", cap=5.0)
    assert torch.allclose(whole[0, :2], torch.tensor(0.25).exp()) and torch.allclose(whole[1], torch.tensor(5.0))
    # Weighing advantages is weighing each token's clipped loss.
    advantages, moved = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]]), log_probs + 0.4
    loss, _ = ppo_policy_loss(moved, log_probs, advantages * weights, mask)
    rho = torch.tensor(0.4).exp()
    each = torch.maximum(-advantages * rho, -advantages * rho.clamp(0.8, 1.2)) * weights
    assert torch.allclose(loss, each[mask].mean())


def test_without_vllm_or_with_models_it_does_not_know(monkeypatch: pytest.MonkeyPatch, vllm: None) -> None:
    shifted = tiny_ppo(tiny_model(token_shift=True), rollout_backend="vllm")
    with pytest.raises(ConfigError, match=r"Hugging Face families(.|\n)*token_shift=false"):
        shifted.collect(0, SCHEDULE)
    assert TOKENIZER.stop_ids
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"needs vLLM(.|\n)*pip install vllm"):
        tiny_ppo(rollout_backend="vllm")
