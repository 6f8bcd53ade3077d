"""Fine-tuning, reward model and DPO on a tiny core: what changes no loss, where scores are read, and gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maquette.data.example_batches import (
    ConversationBatch,
    LabelledBatch,
    PreferenceBatch,
    conversation_batches,
    labelled_batches,
    mismatched_examples,
    preference_batches,
)
from maquette.data.example_data import HeldOutExamples
from maquette.data.examples import Examples
from maquette.model import LanguageModel, ScalarModel, TransformerConfig
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.objectives import (
    DirectPreferenceOptimization,
    KahnemanTverskyOptimization,
    Optimization,
    RewardModelling,
    SupervisedFineTuning,
)
from maquette.objectives.completions import completion_log_probs
from maquette.objectives.config import LabelledConfig, PreferenceConfig, RewardModelConfig, SupervisedConfig
from maquette.objectives.reward import last_scores
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig

SHAPE = TransformerConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    token_shift=True,
    dropout=0.2,
)
OPTIMIZATION = Optimization(AdamWConfig(), ConstantSchedulerConfig(), 1e-3, 0.0, 1, 1)
LENGTHS = [5, 9, 4, 3, 9, 6, 4, 3, 8, 5, 7, 7, 4, 6, 5, 3]


def examples(seed: int = 0) -> Examples:
    numbers = np.random.default_rng(seed)
    tokens = numbers.integers(1, 50, sum(LENGTHS)).astype(np.int32)
    mask = np.concatenate([np.arange(length) >= 2 for length in LENGTHS])
    count = len(LENGTHS)
    columns = {"margin": np.linspace(0, 1, count), "probability": np.full(count, np.nan)}
    return Examples(tokens, mask, np.cumsum([0, *LENGTHS]), columns)


EXAMPLES = examples()


def fine_tuning() -> SupervisedFineTuning:
    return SupervisedFineTuning(LanguageModel(SHAPE), OPTIMIZATION, SupervisedConfig()).eval()


def rewarding(**config: Any) -> RewardModelling:
    return RewardModelling(ScalarModel(SHAPE), OPTIMIZATION, RewardModelConfig(**config)).eval()


def preferring(**config: Any) -> DirectPreferenceOptimization:
    return DirectPreferenceOptimization(LanguageModel(SHAPE), OPTIMIZATION, PreferenceConfig(**config))


def pairs(parts: int = 1, count: int = 8, moved: float = 0.3) -> list[PreferenceBatch]:
    whole = conversation_batches(EXAMPLES, range(16), 1, packed=False)[0]
    with torch.no_grad():
        reference = completion_log_probs(LanguageModel(SHAPE).eval(), whole)[0]
    wobble = torch.linspace(-moved, moved, 16) if moved else 0.0
    return preference_batches(EXAMPLES, range(count), parts, reference + wobble)


def validated(objective: Any, batch: Any) -> Tensor:
    """What validation finds of a batch."""
    objective.on_validation_epoch_start()
    with torch.no_grad():
        values: Tensor = objective.validation_step(HeldOutExamples(batch, 0), 0)
    return values


def gradients(objective: Any, batches: list[Any]) -> tuple[float, list[Tensor]]:
    """Loss and gradients of micro-batches as Lightning takes them: means."""
    objective.zero_grad()
    total = 0.0
    for batch in batches:
        loss, _ = objective.loss(batch)
        (loss / len(batches)).backward()
        total += loss.item() / len(batches)
    return total, [parameter.grad.clone() for parameter in objective.parameters() if parameter.grad is not None]


def assert_equal(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    for left, right in zip(one[1], other[1], strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_packed_loss_is_the_unpacked_loss() -> None:
    objective = fine_tuning()
    packed = conversation_batches(EXAMPLES, range(16), 1)
    assert len(packed[0].tokens) < 16
    plain = conversation_batches(EXAMPLES, range(16), 1, packed=False)
    assert_equal(gradients(objective, packed), gradients(objective, plain))
    losses = [sorted(validated(objective, batches[0])[0].tolist()) for batches in (packed, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_one_by_eight_is_four_by_two() -> None:
    """The gradient is of the mean over tokens (or pairs), however they are split."""
    assert_equal(*(gradients(fine_tuning(), conversation_batches(EXAMPLES, range(8), parts)) for parts in (1, 4)))
    assert_equal(*(gradients(rewarding(), pairs(parts)) for parts in (1, 4)))
    assert_equal(*(gradients(preferring(sft_weight=0.5), pairs(parts)) for parts in (1, 4)))


def test_only_answers_are_learned() -> None:
    objective = fine_tuning()
    (batch,) = conversation_batches(EXAMPLES, [1], 1)
    with torch.no_grad():
        logits = objective.model(batch.inputs).log_softmax(-1)
        expected = -logits.gather(2, batch.targets[..., None])[0, 1:, 0].mean()
    assert objective.loss(batch)[0].item() == pytest.approx(expected.item(), abs=1e-6)


def left_padded(batch: ConversationBatch) -> ConversationBatch:
    """The same rows with their padding in front, which segments keep apart from the text."""
    width = batch.tokens.size(1)
    moved = {name: torch.zeros_like(getattr(batch, name)) for name in ("tokens", "loss_mask")}
    segments, positions = torch.full_like(batch.tokens, -1), torch.zeros_like(batch.tokens)
    for row, length in enumerate(batch.lengths.tolist()):
        for name in moved:
            moved[name][row, width - length :] = getattr(batch, name)[row, :length]
        segments[row, width - length :] = 0
        positions[row, width - length :] = torch.arange(length)
    return ConversationBatch(moved["tokens"], moved["loss_mask"], batch.lengths, segments, positions, batch.divisor)


def test_padding_in_front_changes_nothing() -> None:
    model = LanguageModel(SHAPE).eval()
    (batch,) = conversation_batches(EXAMPLES, range(16), 1, packed=False)
    right, left = completion_log_probs(model, batch), completion_log_probs(model, left_padded(batch))
    assert torch.allclose(right[0], left[0], atol=1e-5) and torch.equal(right[1], left[1])


def test_the_score_is_read_at_the_last_real_token() -> None:
    model = ScalarModel(SHAPE).eval()
    (batch,) = conversation_batches(EXAMPLES, range(16), 1, packed=False)
    result = last_scores(model, batch)
    for row, length in enumerate(LENGTHS):
        alone = model(batch.tokens[row : row + 1, :length])[0, -1]
        assert result[row].item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_policy_that_has_not_moved_loses_log_two() -> None:
    objective = preferring()
    loss, metrics = objective.loss(pairs(moved=0.0)[0])
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["rewards/margins"].item() == pytest.approx(0, abs=1e-5)


def test_policies_have_no_dropout_in_training() -> None:
    objective = preferring().train()
    assert objective.training and not objective.model.training
    (batch,) = pairs()
    assert objective.loss(batch)[0].item() == objective.loss(batch)[0].item()


def test_length_normalised() -> None:
    (batch,) = pairs()
    objective = preferring(length_normalized=True, beta=1.0)
    with torch.no_grad():
        policy, counts = completion_log_probs(objective.model, batch.rows())
        reference = torch.cat([batch.reference_chosen, batch.reference_rejected])
        ratio = (policy - reference) / counts
    _, *rewards = objective.losses(batch, *objective.log_probs(batch))
    assert torch.allclose(torch.cat(rewards), ratio, atol=1e-6)


@pytest.mark.parametrize("loss_type", ["simpo", "orpo"])
def test_without_a_reference(loss_type: str) -> None:
    """None is read, log-probabilities are means over tokens, and micro-batches change nothing."""
    objective = preferring(loss_type=loss_type, beta=2.0)
    (batch,) = pairs()
    batch.reference_chosen = batch.reference_rejected = None
    loss, metrics = objective.loss(batch)
    with torch.no_grad():
        log_probs, counts = completion_log_probs(objective.model, batch.rows())
        chosen, rejected = (log_probs / counts).chunk(2)
    assert metrics["rewards/chosen"].item() == pytest.approx(2 * chosen.mean().item(), abs=1e-5)
    if loss_type == "simpo":
        expected = -torch.nn.functional.logsigmoid(2 * (chosen - rejected) - 0.5).mean()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert_equal(*(gradients(objective, pairs(parts)) for parts in (1, 4)))


def labelled(parts: int = 1, count: int = 8) -> list[LabelledBatch]:
    known = examples()
    known.columns |= {"desirable": np.arange(16) % 3 != 0, "prompt_length": np.full(16, 2)}
    mismatched = mismatched_examples(known, 9)
    model = LanguageModel(SHAPE, seed=1).eval()
    references = tuple(
        completion_log_probs(model, conversation_batches(one, range(16), 1, packed=False)[0])[0].detach()
        for one in (known, mismatched)
    )
    return labelled_batches(known, mismatched, (references[0], references[1]), range(count), parts)


def test_good_and_bad_completions() -> None:
    objective = KahnemanTverskyOptimization(LanguageModel(SHAPE), OPTIMIZATION, LabelledConfig(undesirable_weight=2.0))
    (batch,) = labelled()
    loss, metrics = objective.loss(batch)
    assert batch.mismatched is not None and batch.mismatched_reference is not None
    with torch.no_grad():
        kl = (completion_log_probs(objective.model, batch.mismatched)[0] - batch.mismatched_reference).mean()
        ratio = completion_log_probs(objective.model, batch.rows)[0] - batch.reference
    assert metrics["objective/kl"].item() == pytest.approx(max(kl.item(), 0.0), abs=1e-5)
    good = batch.desirable
    assert good.any() and not good.all()
    z = metrics["objective/kl"]
    expected = torch.where(good, 1 - torch.sigmoid(0.1 * (ratio - z)), 2 * (1 - torch.sigmoid(0.1 * (z - ratio))))
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-6)
    assert metrics["rewards/chosen"].item() == pytest.approx(0.1 * ratio[good].mean().item(), abs=1e-5)
    # One estimate for the step, whatever micro-batches it comes in.
    assert_equal(*(gradients(objective, labelled(parts)) for parts in (1, 4)))


def test_a_prompt_goes_before_another_prompts_completion() -> None:
    tokens = np.array([1, 2, 10, 11, 1, 2, 20, 3, 4, 30, 31, 32], dtype=np.int32)
    mask = np.array([0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1], dtype=bool)
    given = Examples(tokens, mask, np.array([0, 4, 7, 12]), {"prompt_length": np.full(3, 2)})
    ids = [(row.tolist(), counts.tolist()) for row, counts in mismatched_examples(given, 4)]
    assert ids == [
        ([1, 2, 30, 31], [False, False, True, True]),  # cut to what fits
        ([1, 2, 30, 31], [False, False, True, True]),
        ([3, 4, 10, 11], [False, False, True, True]),
    ]


def test_margins_soft_labels_and_binary() -> None:
    (batch,) = pairs()
    chosen, rejected = (rewards.detach() for rewards in rewarding().rewards(batch))
    difference = chosen - rejected

    def loss(**config: Any) -> float:
        return rewarding(**config).loss(batch)[0].item()

    def nll(x: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(x)

    assert loss() == pytest.approx(nll(difference).mean().item(), abs=1e-6)
    assert loss(margin=2.0) == pytest.approx(nll(difference - 2 * batch.margin).mean().item(), abs=1e-6)
    soft = 0.9 * nll(difference) + 0.1 * nll(-difference)
    assert loss(label_smoothing=0.1) == pytest.approx(soft.mean().item(), abs=1e-6)
    assert loss(loss="binary") == pytest.approx((nll(chosen) + nll(-rejected)).mean().item() / 2, abs=1e-6)
    batch.probability[:] = 0.75
    votes = 0.75 * nll(difference) + 0.25 * nll(-difference)
    assert loss() == pytest.approx(votes.mean().item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["block", "selective"])
def test_recomputed_blocks_change_no_bit(kind: str) -> None:
    packed = conversation_batches(EXAMPLES, range(16), 1)
    labels = KahnemanTverskyOptimization(LanguageModel(SHAPE), OPTIMIZATION, LabelledConfig())
    for objective, batches in (
        (fine_tuning().train(), packed), (rewarding(), pairs(2)), (preferring(), pairs(2)), (labels, labelled(2)),
    ):  # fmt: skip
        results = []
        for one in ("none", kind):
            checkpoint_blocks(objective.model.core.layers, one)
            torch.manual_seed(0)  # for dropout
            results.append(gradients(objective, batches))
        assert results[0][0] == results[1][0]
        assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))
