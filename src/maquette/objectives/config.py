"""Settings of the training objectives. Each has its own: what means nothing for an objective can't be given to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import CustomNode, from_table, setting
from maquette.artifacts.targets import import_target
from maquette.recipe.objectives import ObjectiveEntry, entry_of


@dataclass
class ObjectiveConfig:
    """What the settings of every objective are a kind of."""

    _target_: str = setting("", "the LightningModule's class")
    kind: str = setting("pretrain", "what is trained for")

    @property
    def entry(self) -> ObjectiveEntry:
        """What other packages have to know of it."""
        ours = (name for name, one in OBJECTIVES.items() if one._target_ == self._target_)
        return entry_of(next(ours, self._target_))


@dataclass
class PretrainConfig(ObjectiveConfig):
    """Pretraining: predict every next token."""

    _target_: str = setting("maquette.objectives.Pretraining", "the LightningModule's class")
    kind: str = setting("pretrain", "what is trained for", choices=("pretrain",))
    z_loss: float = setting(0.0, "weight of the squared log-normaliser of the logits", minimum=0.0)
    logits_limit: int | None = setting(
        None,
        "above so many logits (tokens of a forward pass x vocabulary) the loss is computed in chunks; "
        "by default what is fastest on the device",
        minimum=1,
    )


@dataclass
class ExampleConfig(ObjectiveConfig):
    """What objectives over a fixed set of examples have in common."""

    epochs: float = setting(2.0, "how often every example is seen", minimum=0.0)
    batch_size: int = setting(64, "examples (or pairs) of an optimiser step, over all processes", minimum=1)


@dataclass
class SupervisedConfig(ExampleConfig):
    """Supervised fine-tuning: imitate completions."""

    _target_: str = setting("maquette.objectives.SupervisedFineTuning", "the LightningModule's class")
    kind: str = setting("sft", "what is trained for", choices=("sft",))
    packing: bool = setting(True, "short examples share a row; attention does not cross, and no loss changes")
    sample_prompts: int = setting(4, "held-out prompts that are answered at each validation, to be read", minimum=0)
    max_completion_length: int = setting(64, "tokens of such a completion at most", minimum=1)


@dataclass
class RewardModelConfig(ExampleConfig):
    """A reward model: tell the chosen completion from the rejected one."""

    _target_: str = setting("maquette.objectives.RewardModelling", "the LightningModule's class")
    kind: str = setting("reward", "what is trained for", choices=("reward",))
    epochs: float = setting(3.0, "how often every pair is seen", minimum=0.0)
    loss: str = setting(
        "bradley_terry",
        "compare the two completions, or classify each alone as won or lost",
        choices=("bradley_terry", "binary"),
    )
    margin: float = setting(
        0.0, "how much of the pairs' margins the rewards have to differ by; 0: margins are not used", minimum=0.0
    )
    centering: float = setting(0.0, "weight of the squared sum of a pair's rewards", minimum=0.0)
    label_smoothing: float = setting(
        0.0, "how likely a label is taken to be wrong, where a pair has no probability of its own", minimum=0.0,
        maximum=0.5,
    )  # fmt: skip

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        if self.loss == "binary" and (self.margin or self.centering or self.label_smoothing):
            raise ConfigError(
                "objective.loss=binary has neither margin nor centering nor label_smoothing.",
                "They are about the difference of two rewards: use objective.loss=bradley_terry.",
            )
        if self.margin and self.label_smoothing:
            raise ConfigError(
                "objective.margin and objective.label_smoothing are two ways to weigh a label.", "Use one of them."
            )


_WITHOUT_REFERENCE = ("simpo", "orpo")
"""Losses of pairs that compare with no reference. They are length-normalised by definition."""


@dataclass
class PairLossConfig:
    """Which loss of a chosen and a rejected completion."""

    beta: float = setting(0.1, "strength of the KL constraint: the lower, the further from the reference", minimum=1e-6)
    loss_type: str = setting("sigmoid", "the loss", choices=("sigmoid", "ipo", "hinge", "robust", *_WITHOUT_REFERENCE))
    label_smoothing: float = setting(
        0.0, "how likely a label is taken to be wrong (sigmoid: cDPO; robust)", minimum=0.0, maximum=0.499
    )
    length_normalized: bool = setting(False, "means over a completion's tokens instead of sums")
    simpo_gamma: float = setting(0.5, "margin of rewards that simpo asks for", minimum=0.0)

    @property
    def has_reference(self) -> bool:
        """Whether the loss needs log-probabilities of the model that training starts from."""
        return self.loss_type not in _WITHOUT_REFERENCE

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        if self.label_smoothing and self.loss_type not in ("sigmoid", "robust"):
            raise ConfigError(
                f"objective.label_smoothing has no meaning for objective.loss_type={self.loss_type}.",
                "Use objective.loss_type=sigmoid or robust.",
            )
        if self.length_normalized and not self.has_reference:
            raise ConfigError(
                f"objective.loss_type={self.loss_type} is always length-normalised.",
                "Leave objective.length_normalized out.",
            )


@dataclass
class ReferenceConfig(ExampleConfig):
    """What objectives over examples have in common that stay near the model they start from."""

    sample_prompts: int = setting(
        64, "held-out prompts that are answered at each validation, to measure the KL on", minimum=0
    )
    max_completion_length: int = setting(64, "tokens of such a completion at most", minimum=1)


@dataclass
class PreferenceConfig(PairLossConfig, ReferenceConfig):
    """Direct preference optimisation: raise the chosen completion against the rejected one, without a reward model."""

    _target_: str = setting("maquette.objectives.DirectPreferenceOptimization", "the LightningModule's class")
    kind: str = setting("dpo", "what is trained for", choices=("dpo",))
    sft_weight: float = setting(0.0, "of a term of fine-tuning on the chosen completions", minimum=0.0)


@dataclass
class LabelledConfig(ReferenceConfig):
    """KTO: raise completions that are good and lower those that are bad, each by itself."""

    _target_: str = setting("maquette.objectives.KahnemanTverskyOptimization", "the LightningModule's class")
    kind: str = setting("kto", "what is trained for", choices=("kto",))
    beta: float = setting(0.1, "strength of the KL constraint: the lower, the further from the reference", minimum=1e-6)
    desirable_weight: float = setting(1.0, "of good completions in the loss", minimum=0.0)
    undesirable_weight: float = setting(1.0, "of bad completions in the loss", minimum=0.0)


@dataclass
class RolloutConfig(ObjectiveConfig):
    """What objectives over prompts have in common: they sample completions and learn from their scores."""

    num_iterations: int = setting(50, "rounds of sampling and learning; each is an epoch", minimum=1)
    rollout_batch_size: int = setting(128, "completions sampled in an iteration, over all processes", minimum=1)
    ppo_epochs: int = setting(2, "how often each completion is learned from", minimum=1)
    num_minibatches: int = setting(2, "optimiser steps of a pass", minimum=1)
    max_completion_length: int = setting(20, "tokens of a completion at most", minimum=1)
    temperature: float = setting(1.0, "of the distribution that is sampled from and trained", minimum=0.01)
    resample_groups: int = setting(
        0, "how often a group of equal scores is replaced by completions of another prompt at most; 0: never", minimum=0
    )
    normalize_scores: int = setting(
        256, "scores are standardised by those of so many completions of the reference; 0: left as they are", minimum=0
    )
    missing_eos_penalty: float = setting(1.0, "taken off the score of one without an end of turn", minimum=0.0)
    overlong_buffer: int = setting(
        0, "over the last so many of max_completion_length tokens a penalty rises to 1; 0: none", minimum=0
    )
    sample_prompts: int = setting(
        256, "held-out prompts that are answered at each validation, to measure reward and KL on", minimum=1
    )
    rollout_backend: str | None = setting(
        None,
        "what samples the policy's completions: this program (null), or vLLM on the same GPU (vllm)",
        choices=("vllm",),
    )

    has_value = False
    """Whether a value function says what was to be expected."""

    unit = 1
    """Completions that one term of the loss is about."""

    cores = 1
    """Cores that a forward pass of training goes through."""

    @property
    def completions_per_prompt(self) -> int:
        return 1

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        if self.overlong_buffer > self.max_completion_length:
            raise ConfigError(
                f"objective.overlong_buffer={self.overlong_buffer} is more than "
                f"objective.max_completion_length={self.max_completion_length}.",
                "It is the last part of it: give fewer tokens, or 0 for no penalty.",
            )
        if self.rollout_batch_size % self.completions_per_prompt:
            size = "objective.group_size=" if self.unit == 1 else ""
            raise ConfigError(
                f"objective.rollout_batch_size={self.rollout_batch_size} is not a multiple of "
                f"{size}{self.completions_per_prompt}.",
                f"Each prompt is answered {self.completions_per_prompt} times.",
            )
        if self.rollout_batch_size < self.unit * self.num_minibatches:
            raise ConfigError(
                f"objective.rollout_batch_size={self.rollout_batch_size} is less than "
                f"objective.num_minibatches={self.num_minibatches}{' pairs' if self.unit == 2 else ''}.",
                "Use more rollouts or fewer minibatches.",
            )


@dataclass
class PolicyConfig(RolloutConfig):
    """Policy optimisation: sample completions, score them, and move towards what scored well."""

    _target_: str = setting("maquette.objectives.ProximalPolicyOptimization", "the LightningModule's class")
    kind: str = setting("ppo", "what is trained for", choices=("ppo",))
    advantage: str = setting(
        "value", "what a completion is compared with: a value function, or the others of its prompt (group: over their "
        "standard deviation; centered: not; rloo: their mean without it)",
        choices=("value", "group", "centered", "rloo"),
    )  # fmt: skip
    group_size: int = setting(4, "completions of one prompt, unless advantage=value", minimum=2)
    value_init: str = setting(
        "reward",
        "what the value function starts from: the reward model, the policy's core, or shared (a head on the policy)",
        choices=("reward", "policy", "shared"),
    )
    value_learning_rate: float | None = setting(
        None, "peak learning rate of the value function; by default 3.3 times the policy's", minimum=0.0
    )
    vf_coef: float = setting(0.1, "of the value loss beside the policy loss", minimum=0.0)
    clip_range: float = setting(0.2, "how far the ratio of policies may be from 1", minimum=0.0)
    clip_range_high: float | None = setting(None, "how far it may be above 1; by default as far as below", minimum=0.0)
    ratio: str = setting("token", "of each token, or of the completion as a whole", choices=("token", "completion"))
    normalizer: str = setting(
        "tokens", "the policy loss is the mean over tokens, over completions' means, or a sum over a constant number",
        choices=("tokens", "completions", "constant"),
    )  # fmt: skip
    mask_truncated: bool = setting(False, "nothing is learned from completions without an end of turn")
    clip_range_value: float = setting(0.2, "how far a value may move from the old one", minimum=0.0)
    gamma: float = setting(1.0, "gamma of the advantage estimate", minimum=0.0, maximum=1.0)
    gae_lambda: float = setting(0.95, "lambda of the advantage estimate", minimum=0.0, maximum=1.0)
    kl_coefficient: float = setting(
        0.1, "KL penalty coefficient: reward taken off per nat from the reference", minimum=0.0
    )
    kl_estimator: str = setting("k1", "estimate of that KL divergence in the reward", choices=("k1", "k2", "k3"))
    kl_target: float | None = setting(
        None,
        "steer kl_coefficient so that a completion's KL divergence from the reference is so many nats (stopping an "
        "iteration: target_kl)",
        minimum=0.0,
    )
    kl_horizon: float = setting(10_000, "episodes in which the steered coefficient adapts", minimum=1)
    target_kl: float | None = setting(
        None, "an iteration's remaining steps are left out once the approximate KL to its start exceeds this "
        "(steering: kl_target)",
        minimum=0.0,
    )  # fmt: skip
    ent_coef: float = setting(0.0, "of an entropy bonus", minimum=0.0)
    whiten_rewards: bool = setting(False, "tokens' rewards are scaled to unit variance")

    @property
    def has_value(self) -> bool:  # type: ignore[override]
        """Whether a value function says what was to be expected."""
        return self.advantage == "value"

    @property
    def completions_per_prompt(self) -> int:
        return 1 if self.has_value else self.group_size

    @property
    def cores(self) -> int:  # type: ignore[override]
        """Those of the policy, and of a value function that has one of its own."""
        return 2 if self.has_value and self.value_init != "shared" else 1

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        super().validate()
        if self.resample_groups and self.has_value:
            raise ConfigError(
                f"objective.resample_groups={self.resample_groups}, but objective.advantage=value has no groups.",
                "Use objective.advantage=group, centered or rloo.",
            )
        if self.kl_target is not None and not self.kl_target > 0:
            raise ConfigError(
                f"objective.kl_target={self.kl_target:g}: a KL divergence of 0 can't be steered to.",
                "Give nats above 0, or null for a fixed coefficient.",
            )


@dataclass
class OnlinePreferenceConfig(PairLossConfig, RolloutConfig):
    """Online DPO: of two completions that the policy samples, raise the one of the higher score."""

    _target_: str = setting("maquette.objectives.OnlinePreferenceOptimization", "the LightningModule's class")
    kind: str = setting("online_dpo", "what is trained for", choices=("online_dpo",))
    ppo_epochs: int = setting(1, "how often each completion is learned from", minimum=1)

    unit = 2

    @property
    def completions_per_prompt(self) -> int:
        return 2

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        PairLossConfig.validate(self)
        RolloutConfig.validate(self)


@dataclass
class CustomObjectiveConfig(CustomNode, ObjectiveConfig):
    """An objective of a user's: a LightningModule class, and what it is made with besides the model."""

    kind: str = setting("custom", "what is trained for", choices=("custom",))


OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    "pretrain": PretrainConfig,
    "sft": SupervisedConfig,
    "reward": RewardModelConfig,
    "dpo": PreferenceConfig,
    "kto": LabelledConfig,
    "ppo": PolicyConfig,
    "online_dpo": OnlinePreferenceConfig,
}
"""The settings of each objective."""

_NEEDED: dict[str, type[ObjectiveConfig]] = {
    "instructions": ExampleConfig, "preferences": ExampleConfig, "labels": ExampleConfig, "prompts": RolloutConfig,
}  # fmt: skip
"""What the settings of an objective are a kind of that reads such data."""


def objective_of(node: Mapping[str, Any]) -> ObjectiveConfig:
    """The settings in a table, in the class of the objective that its `_target_` names (by default pretraining).

    A user's class that reads text takes any settings; one that reads something else (recipe/objectives.py) says with
    `config_class` which. Raises `ConfigError` for a key that it does not have, and where it does not say so.
    """
    target = str(node.get("_target_") or PretrainConfig._target_)
    ours = next((one for one in OBJECTIVES.values() if one._target_ == target), None)
    if ours is not None:
        return _typed(ours, {key: value for key, value in node.items() if key != "kind"})
    module = import_target(target, key="objective._target_")
    if entry_of(target).reads_text:
        return CustomObjectiveConfig.of_target(node)
    needed, settings = _NEEDED[entry_of(target).reads], getattr(module, "config_class", None)
    if not (isinstance(settings, type) and issubclass(settings, needed)):
        raise ConfigError(
            f"objective: {target} reads {entry_of(target).reads} and has no config_class that is a {needed.__name__}.",
            f"Derive its settings from maquette.objectives.config.{needed.__name__}.",
        )
    return _typed(settings, node)


def _typed(settings: type[ObjectiveConfig], values: Mapping[str, Any]) -> ObjectiveConfig:
    config: ObjectiveConfig = from_table(settings, values, "objective")
    return config
