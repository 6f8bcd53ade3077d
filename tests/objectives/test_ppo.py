"""PPO: what goes wrong silently elsewhere, and that a tiny policy learns."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import render_prompt
from maquette.model import LanguageModel, ScalarModel
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.parametrization import Parametrization
from maquette.objectives.completions import Completion, sample_completions
from maquette.objectives.losses import group_advantages, kl_estimate
from maquette.objectives.ppo import ProximalPolicyOptimization
from maquette.objectives.rollouts import Rollouts, RolloutSchedule, collect_rollouts
from maquette.optimization.config import AdamWConfig, MuonConfig
from support.list_logger import ListLogger
from support.policies import TOKENIZER, Prompts, tiny_model, tiny_ppo, tiny_value, trainer

SCHEDULE = RolloutSchedule(rollout_batch_size=8, ppo_epochs=2, minibatches=2)


def train(
    objective: ProximalPolicyOptimization, schedule: RolloutSchedule = SCHEDULE, *, epochs: int = 1
) -> list[dict[str, float]]:
    """What each optimiser step has shown."""
    logger = ListLogger()
    fitting = trainer(epochs=epochs, accumulate=schedule.micro_batches, loggers=[logger])
    fitting.fit(objective, objective.loader(schedule))
    assert [row["step"] for row in logger.rows] == list(range(1, fitting.global_step + 1))
    return logger.rows


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_ratio_is_exactly_one_at_the_first_minibatch(dropout: float, temperature: float) -> None:
    shown = train(tiny_ppo(tiny_model(dropout=dropout, scale=3.0), temperature=temperature))
    assert shown[0]["val/ratio"] == 1.0
    assert shown[0]["policy/approxkl_avg"] == 0.0
    assert shown[0]["policy/clipfrac_avg"] == 0.0
    assert shown[1]["policy/approxkl_avg"] > 0.0
    assert shown[0]["objective/kl"] == 0.0  # before the first step the policy is the reference


def test_without_a_learning_rate_nothing_moves() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for step in train(tiny_ppo(model, learning_rate=0.0), epochs=2):
        assert step["val/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert step["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sampled_log_probabilities_are_those_that_training_computes() -> None:
    model = tiny_model(scale=3.0).eval()
    prompts = [Prompts()[number] for number in range(6)]
    objective = tiny_ppo(model)
    completions = sample_completions(model, TOKENIZER, prompts, max_tokens=8, seed=3)
    rollouts = Rollouts.of(completions)
    log_probs, _, _ = objective.evaluate(rollouts, entropy=False)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        logits = model(torch.tensor([[*prompt.ids, *completion.answer_ids]]))[0, :-1].log_softmax(-1)
        start = len(prompt.ids) - 1
        expected = [logits[start + place, token].item() for place, token in enumerate(completion.answer_ids)]
        assert log_probs[row][rollouts.mask[row]].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_answer_does_not_depend_on_the_padding_beside_it() -> None:
    model = tiny_model(scale=3.0).eval()
    prompts = [Prompts()[number] for number in range(8)]
    together = sample_completions(model, TOKENIZER, prompts, max_tokens=8, seed=3)
    assert len({len(prompt.ids) for prompt in prompts}) > 1
    alone = [
        sample_completions(model, TOKENIZER, [prompt], max_tokens=8, seed=3, first=number)[0]
        for number, prompt in enumerate(prompts)
    ]
    assert together == alone
    objective = tiny_ppo(model)
    whole = objective.evaluate(Rollouts.of(together), entropy=False)
    for row, completion in enumerate(together):
        one = objective.evaluate(Rollouts.of([completion]), entropy=False)
        for batched, single in zip(whole[:2], one[:2], strict=True):
            assert batched is not None and single is not None
            assert torch.allclose(batched[row, : single.size(1)], single[0], atol=1e-5)


def test_the_score_stands_on_the_last_real_token_alone() -> None:
    objective = tiny_ppo(kl_coefficient=0.0, gae_lambda=1.0, normalize_scores=0)
    rollouts, _ = objective.collect(0, SCHEDULE)
    # With lambda 1 and no KL penalty every completion token's return is the score.
    environment = objective.environment
    completions, scores = environment.completions(objective.model, 0, SCHEDULE.rollout_batch_size)
    scores = environment.standardized(scores, completions)
    for row in range(len(completions)):
        returns = rollouts.returns[row][rollouts.mask[row]]
        assert torch.allclose(returns, scores[row].expand_as(returns), atol=1e-5)
        last = int(rollouts.mask[row].nonzero().max())
        assert rollouts.tokens[row, last + 1] == completions[row].answer_ids[-1]
        assert last + 2 == int(rollouts.lengths[row])
    assert not rollouts.returns[~rollouts.mask].any() and not rollouts.advantages[~rollouts.mask].any()


def test_the_missing_end_is_looked_for_in_the_answer_alone() -> None:
    prompt = Prompts()[0]
    assert TOKENIZER.end_of_turn_id in prompt.ids  # the user's turn has one
    environment = tiny_ppo(missing_eos_penalty=2.0, normalize_scores=0).environment
    ended = Completion(prompt.messages, "a", prompt.ids, (*TOKENIZER.encode("a"), TOKENIZER.end_of_turn_id or 0), True)
    endless = Completion(prompt.messages, "a", prompt.ids, tuple(TOKENIZER.encode("a")), False)
    scores = environment.scores([ended, endless])
    assert scores.tolist() == [1.0, 1.0]
    assert environment.standardized(scores, [ended, endless]).tolist() == [1.0, -1.0]


def test_padding_is_not_the_end() -> None:
    assert TOKENIZER.padding_id not in TOKENIZER.stop_ids
    rollouts = Rollouts.of(
        [
            Completion((), "", (1, 2), (5,), True),
            Completion((), "", (1, 2, 3, 4), (6, 7, 5), True),
        ]
    )
    assert rollouts.mask.tolist() == [
        [False, True, False, False, False, False],
        [False, False, False, True, True, True],
    ]


def test_divergence_may_be_negative() -> None:
    objective = tiny_ppo(tiny_model(seed=1, scale=2.0))
    objective._frozen = (tiny_model(seed=2, scale=2.0).eval(),)
    rollouts, _ = objective.collect(0, SCHEDULE)
    reference = objective.reference_log_probs(rollouts)
    kl = kl_estimate(rollouts.log_probs, reference)[rollouts.mask]
    assert (kl < 0).any() and (kl > 0).any()


@pytest.mark.parametrize("value_init", ["policy", "shared"])
def test_mup_gives_every_parameter_its_share_of_the_rate(value_init: str) -> None:
    objective, mup = tiny_ppo(value_init=value_init), Parametrization("mup", 8, 8)
    objective.optimization = dataclasses.replace(objective.optimization, parametrization=mup)
    optimizer: Any = objective.configure_optimizers()["optimizer"]
    rates = {id(one): group["initial_lr"] for group in optimizer.param_groups for one in group["params"]}
    shares = {name: rates[id(one)] / 1e-3 for name, one in objective.model.named_parameters()}
    assert shares == pytest.approx({name: mup.rate_factor(name, objective.model) for name in shares})
    assert set(map(round, (2 * share for share in shares.values()))) >= {1, 2}
    assert all(id(one) in rates for one in objective.parameters())


FORMS: dict[str, dict[str, Any]] = {
    "grpo": {"advantage": "group", "normalizer": "completions"},
    "dr_grpo": {"advantage": "centered", "normalizer": "constant"},
    "dapo": {"advantage": "group", "clip_range_high": 0.28, "resample_groups": 2, "overlong_buffer": 2},
    "rloo": {"advantage": "rloo", "ratio": "completion", "normalizer": "completions"},
}  # fmt: skip


@pytest.mark.parametrize("settings", [{}, *FORMS.values()], ids=["ppo", *FORMS])
def test_micro_batches_give_the_gradient_of_the_whole(settings: dict[str, Any]) -> None:
    gradients = []
    for schedule in (RolloutSchedule(8, 1, 1), RolloutSchedule(8, 1, 1, micro_batches=4)):
        objective = tiny_ppo(tiny_model(scale=2.0), **settings)
        taken: dict[str, torch.Tensor] = {}

        class Keep(Callback):
            def on_before_optimizer_step(
                self, trainer: Any, pl_module: Any, optimizer: Any, taken: Any = taken
            ) -> None:
                taken |= {name: one.grad.clone() for name, one in pl_module.named_parameters() if one.grad is not None}

        fitting = trainer(epochs=1, accumulate=schedule.micro_batches, callbacks=[Keep()])
        fitting.fit(objective, objective.loader(schedule))
        gradients.append(taken)
    assert gradients[0].keys() == gradients[1].keys() and any(one.abs().max() > 1e-3 for one in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-7), name


def test_a_group_of_equal_scores_is_replaced_by_another_prompts() -> None:
    def begins_with_a(completions: Sequence[Completion]) -> list[float]:
        return [float(one.messages[-1]["content"][0] == "a" and len(one.answer) % 2) for one in completions]

    def groups(**settings: Any) -> list[tuple[str, list[float], bool]]:
        objective = tiny_ppo(
            tiny_model(scale=3.0), advantage="group", group_size=4, reward=begins_with_a, normalize_scores=0,
            missing_eos_penalty=0.0, **settings,
        )  # fmt: skip
        completions, scores = objective.environment.completions(objective.model, 0, 32)
        assert scores.tolist() == begins_with_a(completions)
        parts = [completions[start : start + 4] for start in range(0, 32, 4)]
        assert all(len({one.prompt_ids for one in part}) == 1 for part in parts)
        return [
            (part[0].messages[-1]["content"], begins_with_a(part), len(set(begins_with_a(part))) == 1) for part in parts
        ]

    plain, resampled = groups(), groups(resample_groups=8)
    assert resampled == groups(resample_groups=8)  # a pure function of weights and seed
    assert sum(alike for *_, alike in plain) >= 4 and sum(alike for *_, alike in resampled) <= 1
    assert all(one == other for one, other in zip(plain, resampled, strict=True) if not one[2])


def test_nothing_is_learned_from_what_was_cut_off() -> None:
    ended, collected = torch.arange(8) % 3 != 0, []
    for cut in (False, True):
        objective = tiny_ppo(tiny_model(scale=3.0), advantage="group", mask_truncated=cut, normalize_scores=0)
        completions, scores = objective.environment.completions(objective.model, 0, 8)
        completions = [dataclasses.replace(one, ended=bool(end)) for one, end in zip(completions, ended, strict=True)]
        collected.append(collect_rollouts(objective, objective.environment, SCHEDULE, completions, scores)[0])
    whole, masked = collected
    assert whole.mask[~ended].any(1).all() and whole.advantages[~ended].any()
    assert not masked.mask[~ended].any() and not masked.log_probs[~ended].any() and not masked.advantages[~ended].any()
    for name in ("tokens", "mask", "log_probs", "advantages"):  # groups are compared as before
        assert torch.equal(getattr(masked, name)[ended], getattr(whole, name)[ended])


def test_an_iteration_of_cut_off_completions_alone_moves_nothing() -> None:
    model = tiny_model(seed=3)
    before = model.head_weight.clone()
    objective = tiny_ppo(model, advantage="group", mask_truncated=True, max_completion_length=1)
    assert not any(one.ended for one in objective.environment.completions(model, 0, 8)[0])
    shown = train(objective, RolloutSchedule(8, 1, 1))
    assert shown[0]["train/loss"] == 0 and torch.equal(model.head_weight, before)


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_go_through(name: str) -> None:
    shown = train(tiny_ppo(tiny_model(scale=3.0), **FORMS[name]), epochs=2)
    assert shown[0]["val/ratio"] == pytest.approx(1.0, abs=1e-6) and "loss/value_avg" not in shown[0]
    assert 0 <= shown[0]["frac_reward_zero_std"] <= 1 and all(math.isfinite(row["train/loss"]) for row in shown)


@pytest.mark.parametrize(
    "settings",
    [{}, {"advantage": "group"}, {"value_init": "shared"}, *FORMS.values()],
    ids=["ppo", "group", "shared", *FORMS],
)  # fmt: skip
@pytest.mark.slow(reason="trains a policy until it has learnt something")
def test_a_tiny_policy_learns(settings: dict[str, Any]) -> None:
    objective = tiny_ppo(
        learning_rate=3e-3,
        rollout_batch_size=32,
        normalize_scores=64,
        kl_coefficient=0.0,
        missing_eos_penalty=0.0,
        **settings,
    )
    shown = train(objective, RolloutSchedule(32, 2, 2), epochs=40)
    first, last = shown[0]["objective/scores"], shown[-1]["objective/scores"]
    assert last > first + 0.2
    assert shown[-1]["objective/kl"] > 0.5


@pytest.mark.parametrize("node", [AdamWConfig(), {"_target_": "torch.optim.RMSprop"}])
def test_one_optimiser_with_a_rate_for_each_part(node: Any) -> None:
    objective = tiny_ppo(learning_rate=3e-4, value_learning_rate=1e-3)
    objective.optimization = dataclasses.replace(objective.optimization, optimizer=node)
    optimizer = objective.configure_optimizers()["optimizer"]
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert {rates[id(one)] for one in objective.model.parameters()} == {3e-4}
    assert objective.value is not None
    assert {rates[id(one)] for one in objective.value.parameters()} == {1e-3}
    assert not any(one.requires_grad for one in objective.reference.parameters())
    assert not any(name.startswith("_frozen") for name in objective.state_dict())


def test_an_optimiser_with_a_rate_of_its_own_for_matrices_is_refused() -> None:
    objective = tiny_ppo()
    objective.optimization = dataclasses.replace(objective.optimization, optimizer=MuonConfig())
    with pytest.raises(ConfigError, match="optimizer=muon"):
        objective.configure_optimizers()


def test_the_value_function_starts_from_the_reward_model() -> None:
    model = tiny_model()
    value = tiny_value(model)
    objective = tiny_ppo(model, value_init="reward")
    assert objective.value is not None
    for name, weight in objective.value.state_dict().items():
        assert torch.equal(weight, value.state_dict()[name]), name
    with pytest.raises(ConfigError, match="not a reward model"):
        ProximalPolicyOptimization(model, objective.optimization, objective.config, environment=objective.environment)
    other = ScalarModel(
        tiny_model().config.__class__(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConfigError, match="9 tokens"):
        ProximalPolicyOptimization(
            model, objective.optimization, objective.config, value=other
        )  # fmt: skip


def test_the_value_function_expects_scores_as_they_are_optimised() -> None:
    def length(completions: Sequence[Completion]) -> list[float]:
        return [10.0 + 3.0 * len(one.answer) for one in completions]

    model = tiny_model(scale=4.0)
    reward_model = tiny_value(model)
    objective = tiny_ppo(model, value_init="reward", normalize_scores=64, reward=length)
    objective.collect(0, SCHEDULE)
    scale = objective.environment.score_scale
    assert scale is not None and isinstance(objective.value, ScalarModel) and scale[0] > 10
    tokens = torch.arange(12).view(2, 6) % model.config.vocab_size
    with torch.no_grad():
        expected = (reward_model(tokens) - scale[0]) / scale[1]
        assert torch.allclose(objective.value(tokens), expected, atol=1e-5)
        objective.collect(1, SCHEDULE)  # once
        assert torch.allclose(objective.value(tokens), expected, atol=1e-5)


def test_a_stopped_iteration_moves_nothing_more() -> None:
    moved: list[list[bool]] = [[]]

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.before = pl_module.model.head_weight.clone()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            moved[0].append(not torch.equal(self.before, pl_module.model.head_weight))

    objective = tiny_ppo(learning_rate=1e-2, target_kl=1e-6)
    schedule = RolloutSchedule(8, 3, 2)
    fitting = trainer(epochs=2, callbacks=[Watch()], loggers=[logger := ListLogger()])
    fitting.fit(objective, objective.loader(schedule))
    assert moved[0] == [True, *[False] * 5] * 2
    assert fitting.global_step == 12
    assert [row["step"] for row in logger.having("train/loss")] == list(range(1, 13))  # what was last seen goes on
    assert all("objective/scores" in row for row in logger.rows)


def test_the_coefficient_is_steered_towards_the_target() -> None:
    high = tiny_ppo(kl_target=1e-3, kl_horizon=16, learning_rate=1e-2)
    shown = train(high, epochs=4)
    assert shown[-1]["objective/kl"] > 1e-3 and high.kl_coefficient > 0.1 * (1 - 0.2 * 8 / 16)
    low = tiny_ppo(kl_target=100.0, kl_horizon=16)
    train(low, epochs=4)
    assert low.kl_coefficient == pytest.approx(0.1 * 0.9**4)


def test_scores_are_standardised_by_the_reference() -> None:
    def length(completions: Sequence[Completion]) -> list[float]:
        return [float(len(one.answer) + 3) for one in completions]

    objective = tiny_ppo(tiny_model(scale=4.0), normalize_scores=64, reward=length)
    objective.collect(0, SCHEDULE)
    environment = objective.environment
    assert environment.score_scale is not None
    mean, deviation = environment.score_scale
    texts = [environment.completions(objective.model, number, 8)[0] for number in range(40)]  # still the reference's
    scores = torch.tensor([score for part in texts for score in length(part)])
    assert mean == pytest.approx(scores.mean().item(), abs=4 * deviation / 8)
    assert deviation == pytest.approx(scores.std().item(), rel=0.5)


def test_a_groups_advantages_sum_to_nothing() -> None:
    rewards = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, False], [True, False, False], [True, False, False]])
    advantages = group_advantages(rewards, mask, 2)
    deviation = math.sqrt(2.0) + 1e-4
    assert advantages[0].tolist() == pytest.approx([-1 / deviation, -1 / deviation, 0.0])
    assert advantages[1].tolist() == pytest.approx([1 / deviation, 1 / deviation, 0.0])
    assert not advantages[2:].any()  # alike: nothing to learn


def test_a_reward_that_is_no_number_is_named() -> None:
    def broken(completions: Sequence[Completion]) -> list[float]:
        return [math.nan if number == 3 else 0.0 for number, _ in enumerate(completions)]

    with pytest.raises(StageError, match="reward of an answer is nan: prompt"):
        tiny_ppo(reward=broken, normalize_scores=0).collect(0, SCHEDULE)
    with pytest.raises(StageError, match="1 scores for 8 answers"):
        tiny_ppo(reward=lambda completions: [0.0], normalize_scores=0).collect(0, SCHEDULE)


def test_a_prompt_that_fills_the_context_is_named() -> None:
    class Long:
        def __getitem__(self, number: int) -> Any:
            return render_prompt(TOKENIZER, [{"role": "user", "content": "a" * 60}])

    objective = tiny_ppo(normalize_scores=0)
    objective.environment.prompts = Long()
    with pytest.raises(StageError, match="64 tokens; the policy's context holds 48"):
        objective.collect(0, SCHEDULE)


def test_an_empty_answer_is_an_answer() -> None:
    end = TOKENIZER.end_of_turn_id
    assert end is not None
    model = tiny_model()
    with torch.no_grad():
        model.head_weight[end] += 50 * model.core(torch.tensor([Prompts()[0].ids]))[0, -1]
    objective = tiny_ppo(model)
    rollouts, metrics = objective.collect(0, SCHEDULE)
    assert metrics["completions/eos_rate"] > 0 and bool((rollouts.mask.sum(1) == 1).any())
    assert torch.isfinite(rollouts.advantages).all()


def test_completions_that_are_cut_from_the_first_are_counted_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    objective = tiny_ppo(max_completion_length=1)
    objective.collect(1, SCHEDULE)
    assert "cut" not in capsys.readouterr().err
    _, metrics = objective.collect(0, SCHEDULE)
    cut = f"{1 - metrics['completions/eos_rate']:.0%}"
    assert f"{cut} of the first completions were cut at 1 tokens" in capsys.readouterr().err


def test_core_weights_arrive_bit_identical() -> None:
    model: LanguageModel = tiny_model(seed=5)
    objective = tiny_ppo(model)
    assert objective.value is not None
    for other in (objective.model, objective.reference, objective.value):
        for name, weight in model.core.state_dict().items():
            assert torch.equal(weight, other.core.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["block", "selective"])
def test_recomputed_blocks_change_no_bit(kind: str) -> None:
    """Of the policy and of its value function, over two iterations."""
    weights = []
    for one in ("none", kind):
        objective = tiny_ppo(tiny_model(scale=3.0))
        assert isinstance(objective.value, ScalarModel)
        checkpoint_blocks([*objective.model.core.layers, *objective.value.core.layers], one)
        train(objective, epochs=2)
        weights.append(objective.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
