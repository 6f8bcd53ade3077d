"""Online DPO: DPO's loss on pairs of the policy's own completions, and that a tiny policy learns."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from maquette.model import LanguageModel
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.objectives.base import Optimization
from maquette.objectives.completions import Completion
from maquette.objectives.config import OnlinePreferenceConfig
from maquette.objectives.environment import Environment
from maquette.objectives.losses import dpo_loss, masked_sum, simpo_loss
from maquette.objectives.online_dpo import OnlinePreferenceOptimization
from maquette.objectives.rollouts import RolloutBatch, RolloutSchedule
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig
from support.list_logger import ListLogger
from support.policies import TOKENIZER, Prompts, share_of_a, tiny_model, trainer

SCHEDULE = RolloutSchedule(rollout_batch_size=16, ppo_epochs=2, minibatches=2, unit=2)


def tiny_online(
    model: LanguageModel | None = None, *, learning_rate: float = 1e-3, reward: Any = share_of_a, **settings: Any
) -> OnlinePreferenceOptimization:
    common = {"rollout_batch_size": 16, "max_completion_length": 6, "normalize_scores": 8, "missing_eos_penalty": 0.0}
    config = OnlinePreferenceConfig(**(common | settings))
    config.validate()
    optimization = Optimization(AdamWConfig(), ConstantSchedulerConfig(), learning_rate, 0.0, 100, 1)
    environment = Environment(config, TOKENIZER, Prompts(), reward)
    return OnlinePreferenceOptimization(model or tiny_model(), optimization, config, environment=environment)


def train(objective: OnlinePreferenceOptimization, schedule: RolloutSchedule, epochs: int) -> list[dict[str, float]]:
    logger = ListLogger()
    fitting = trainer(epochs=epochs, accumulate=schedule.micro_batches, loggers=[logger])
    fitting.fit(objective, objective.loader(schedule))
    return logger.rows


@pytest.mark.parametrize("loss_type", ["sigmoid", "simpo"])
def test_the_loss_is_dpos_on_pairs_ordered_by_the_reward(loss_type: str) -> None:
    objective = tiny_online(tiny_model(scale=3.0), loss_type=loss_type, beta=0.5)
    objective._frozen = (tiny_model(seed=2, scale=3.0).eval(),)
    rollouts, shown = objective.collect(0, SCHEDULE)
    completions, scores = objective.environment.completions(objective.model, 0, 16)
    mask = rollouts.mask
    log_probs, reference = objective.evaluate(rollouts, entropy=False)[0], objective.reference_log_probs(rollouts)
    policy, theirs, counts = (*(masked_sum(one, mask, dim=1) for one in (log_probs, reference)), mask.sum(1))
    losses = []
    for pair in range(0, 16, 2):
        assert completions[pair].prompt_ids == completions[pair + 1].prompt_ids
        if scores[pair] == scores[pair + 1]:
            losses.append(torch.zeros(1))
            continue
        order = [pair, pair + 1] if scores[pair] > scores[pair + 1] else [pair + 1, pair]
        if loss_type == "simpo":
            losses.append(simpo_loss(*(policy / counts)[order, None], beta=0.5)[0])
        else:
            losses.append(dpo_loss(*policy[order, None], *theirs[order, None], beta=0.5)[0])
    ties = sum(not one.any() for one in losses)
    assert 0 < ties < 8 and shown["frac_reward_zero_std"] == ties / 8
    loss, metrics = objective.loss(RolloutBatch(rollouts, 1.0, 1.0, True, True, {}))
    assert loss.item() == pytest.approx(torch.cat(losses).mean().item(), abs=1e-6)
    expected = 0.0 if loss_type == "simpo" else 0.5
    assert metrics["rewards/chosen"].item() != expected and metrics["logps/chosen"].item() < 0


def test_pairs_stay_together_in_every_pass_and_micro_batch() -> None:
    objective = tiny_online()
    loader = objective.loader(RolloutSchedule(16, 3, 2, micro_batches=2, unit=2))
    prompts = [objective.environment.prompts[number].ids for number in range(8)]
    batches = list(loader)
    assert len(batches) == 12
    for batch in batches:
        rows = batch.rollouts
        starts = [
            tuple(row[: int(mask.nonzero()[0]) + 1].tolist()) for row, mask in zip(rows.tokens, rows.mask, strict=True)
        ]
        assert starts[::2] == starts[1::2] and all(one in prompts for one in starts)
    orders = [torch.cat([batch.rollouts.lengths for batch in batches[part : part + 4]]).tolist() for part in (0, 4, 8)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_micro_batches_give_the_gradient_of_the_whole() -> None:
    gradients = []
    for parts in (1, 4):
        objective = tiny_online(tiny_model(scale=3.0))
        for batch in objective.loader(RolloutSchedule(16, 1, 1, micro_batches=parts, unit=2)):
            (objective.loss(batch)[0] / parts).backward()
        gradients.append([one.grad for one in objective.model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None and other is not None and torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_equal_scores_teach_nothing() -> None:
    def same(completions: Sequence[Completion]) -> list[float]:
        return [1.0] * len(completions)

    model = tiny_model()
    before = model.head_weight.clone()
    shown = train(tiny_online(model, reward=same), SCHEDULE, 1)
    assert torch.equal(model.head_weight, before) and shown[0]["frac_reward_zero_std"] == 1.0


def test_reruns_are_bit_identical() -> None:
    runs = []
    for _ in range(2):
        model = tiny_model(scale=3.0)
        shown = train(tiny_online(model, resample_groups=2), SCHEDULE, 3)
        runs.append((model.head_weight, [row["train/loss"] for row in shown]))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


@pytest.mark.parametrize("settings", [{}, {"loss_type": "simpo", "beta": 2.0}], ids=str)
@pytest.mark.slow(reason="trains a policy until it has learnt something")
def test_a_tiny_policy_learns(settings: dict[str, Any]) -> None:
    objective = tiny_online(learning_rate=3e-3, rollout_batch_size=32, **settings)
    shown = train(objective, RolloutSchedule(32, 2, 2, unit=2), epochs=25)
    assert shown[-1]["objective/scores"] > shown[0]["objective/scores"] + 0.2
    assert shown[-1]["objective/kl"] > 0.5


def test_recomputed_blocks_change_no_bit() -> None:
    weights = []
    for kind in ("none", "block", "selective"):
        model = tiny_model(scale=3.0)
        checkpoint_blocks(model.core.layers, kind)
        train(tiny_online(model), SCHEDULE, epochs=1)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in weights[0])
