"""The objectives, one entry each: all that other packages have to know of one.

What an objective optimises is in its module (`maquette.objectives`), which its settings name by `_target_`; what it
reads, where it may start from and how fast it learns is here. A user's objective gets an entry of the same kind, and is
treated as ours are, where the file of its class says so; without one it is trained on text as pretraining is, and every
setting may matter to it.

    class IdentityOptimization(Objective): ...                      # in beside/objective.py

    register(ObjectiveEntry("beside.objective.IdentityOptimization", reads="preferences", starts_from=("sft",)))
"""

import dataclasses

from maquette.artifacts.errors import ConfigError

READS = ("text", "instructions", "preferences", "labels", "prompts")

Panels = tuple[tuple[str, tuple[str, ...]], ...]
"""Of a run's figure: the label of each axis, and the curves in it."""


@dataclasses.dataclass(frozen=True)
class ObjectiveEntry:
    """`name`: `kind` of the settings, or a user's `_target_`.

    `reads`: text, instructions, preferences, labels (completions that are good or bad by themselves, from
    `preferences.path` too) or prompts. `starts_from`: what `checkpoint=latest` means, the first of
    these objectives that has a run; empty: it may start from scratch. `unused`: settings without effect, each a dotted
    key or a whole group. `learning_rate`: the peak, as a share of what the recipe pretrains a model of this width with.
    `scalar`: the model gives one number in place of logits. `has_reference`: it needs log-probabilities of the model it
    starts from. `answers`: its model replies in the chat template. `calibrated`: what the model says of text
    are still probabilities. `metric`: what a search ranks its runs by. `compiles`: batches have one shape, so that
    torch.compile may pay; `branches`: the schedule may branch off. `title`, `curves`: of the model card and the figure.
    """

    name: str
    reads: str = "text"
    starts_from: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    learning_rate: float = 1.0
    scalar: bool = False
    has_reference: bool = False
    answers: bool = False
    calibrated: bool = True
    metric: str = "validation/loss"
    compiles: bool = False
    branches: bool = False
    title: str = "A language model"
    curves: Panels = ()

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise ConfigError(f"{self.name}: reads={self.reads!r} is none of {', '.join(READS)}.")

    @property
    def label(self) -> str:
        """How the name of a run of it begins."""
        return self.name.rpartition(".")[2]

    @property
    def reads_text(self) -> bool:
        """Whether it trains on the tokens of a mixture, so that the settings alone say how large a run is."""
        return self.reads == "text"

    @property
    def section(self) -> str:
        """The settings that say where what it reads comes from."""
        return "preferences" if self.reads == "labels" else self.reads

    @property
    def reads_pairs(self) -> bool:
        """Whether its examples come two by two, a chosen completion and a rejected one."""
        return self.reads == "preferences"


_AFTERWARDS = (
    "source", "corpus", "curation", "executor", "tokenizer", "pretokenized", "shards", "size", "tokens", "compute",
    "tokens_per_parameter", "model", "mixture", "prediction", "compile",
    "data.sequence_length", "data.batch_size_tokens", "data.document_masking", "data.workers",
    "data.validation_tokens",
)  # fmt: skip
"""Settings of pretraining that mean nothing once there is a model."""

_PREFERRED = ("rewards/accuracies", "validation/accuracy", "validation/accuracy/chosen_longer",
              "validation/accuracy/chosen_shorter")  # fmt: skip

_SAMPLED: Panels = (
    ("reward per completion", ("objective/scores", "validation/reward", "validation/gold")),
    ("KL divergence (nats per completion)", ("objective/kl", "validation/kl")),
    ("tokens or words per completion", ("completions/mean_length", "validation/words")),
)

# Learning rates: at width 128 they are 1.6e-3, 3e-4, 1e-4 and 3e-4, which worked on the embedded tasks; at width 4,096
# 5e-5, 1e-5 and 3e-6, near what models of seven billion parameters are tuned with. DPO falls apart at more.
OBJECTIVES = {
    entry.name: entry
    for entry in (
        ObjectiveEntry(
            "pretrain",
            unused=("instructions", "preferences", "prompts", "reward"),
            compiles=True,
            branches=True,
        ),
        ObjectiveEntry(
            "sft",
            reads="instructions",
            starts_from=("pretrain",),
            unused=(*_AFTERWARDS, "preferences", "prompts", "reward"),
            learning_rate=0.8,
            answers=True,
            title="A language model fine-tuned on instructions",
            curves=(
                ("loss (nats per completion token)", ("train/loss", "validation/loss")),
                ("token accuracy", ("validation/token_accuracy",)),
            ),
        ),
        ObjectiveEntry(
            "reward",
            reads="preferences",
            starts_from=("sft", "pretrain"),
            unused=(*_AFTERWARDS, "instructions", "prompts", "reward"),
            learning_rate=0.16,
            scalar=True,
            title="A reward model",
            curves=(
                ("loss (nats per pair)", ("train/loss", "validation/loss")),
                ("chosen completion has the higher reward", _PREFERRED),
            ),
        ),
        ObjectiveEntry(
            "dpo",
            reads="preferences",
            starts_from=("sft", "pretrain"),
            unused=(*_AFTERWARDS, "instructions", "prompts", "reward"),
            learning_rate=0.05,
            has_reference=True,
            answers=True,
            calibrated=False,
            title="A language model optimised on preferences (DPO)",
            curves=(
                ("loss", ("train/loss", "validation/loss")),
                ("implicit reward", ("rewards/chosen", "rewards/rejected", "rewards/margins")),
                ("KL from the reference (nats per completion)", ("validation/kl",)),
            ),
        ),
        ObjectiveEntry(
            "kto",
            reads="labels",
            starts_from=("sft", "pretrain"),
            unused=(*_AFTERWARDS, "instructions", "prompts", "reward"),
            learning_rate=0.1,
            has_reference=True,
            answers=True,
            calibrated=False,
            title="A language model optimised on good and bad completions (KTO)",
            curves=(
                ("loss", ("train/loss", "validation/loss")),
                ("implicit reward", ("rewards/chosen", "rewards/rejected", "rewards/margins")),
                ("KL from the reference (nats per completion)", ("validation/kl", "objective/kl")),
            ),
        ),
        ObjectiveEntry(
            "ppo",
            reads="prompts",
            starts_from=("sft", "pretrain"),
            unused=(*_AFTERWARDS, "instructions", "preferences"),
            learning_rate=0.16,
            answers=True,
            calibrated=False,
            metric="validation/reward",
            title="A policy optimised by PPO",
            curves=(
                *_SAMPLED,
                (
                    "explained variance, share",
                    ("val/explained_variance", "completions/eos_rate", "policy/clipfrac_avg"),
                ),
            ),
        ),
        ObjectiveEntry(
            "online_dpo",
            reads="prompts",
            starts_from=("sft", "pretrain"),
            unused=(*_AFTERWARDS, "instructions", "preferences"),
            learning_rate=0.05,
            answers=True,
            calibrated=False,
            metric="validation/reward",
            title="A policy optimised by DPO on its own completions",
            curves=(
                *_SAMPLED,
                ("implicit reward", ("rewards/chosen", "rewards/rejected", "rewards/margins")),
            ),
        ),
    )
}


def register(entry: ObjectiveEntry) -> None:
    """Adds an objective, or replaces the one of this name."""
    OBJECTIVES[entry.name] = entry


def entry_of(objective: str) -> ObjectiveEntry:
    """The entry of an objective by its name."""
    return OBJECTIVES.get(objective) or ObjectiveEntry(objective)
