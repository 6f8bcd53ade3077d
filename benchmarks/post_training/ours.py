"""This project's side of `post_training_speed.py`: the objectives under a `lightning.Trainer`."""

import sys
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from shapes import EXAMPLES, MINIBATCHES, PASSES, ROWS, SIZES, VOCABULARY, Rows, words
from turns import Turns

from maquette.data.conversations import Prompt
from maquette.data.example_batches import ExampleBatches, conversation_batches, preference_batches
from maquette.data.examples import ExampleWriter
from maquette.data.order import Reshuffled
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.model import LanguageModel, ScalarModel, TransformerConfig
from maquette.model.linear import fastest_backend, use_backend
from maquette.objectives import DirectPreferenceOptimization, SupervisedFineTuning
from maquette.objectives.base import Objective, Optimization
from maquette.objectives.config import PolicyConfig, PreferenceConfig, SupervisedConfig
from maquette.objectives.environment import Environment
from maquette.objectives.ppo import ProximalPolicyOptimization
from maquette.objectives.rollouts import RolloutSchedule
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig
from maquette.tracking.environment import processor_name
from maquette.training.devices import keep_large_buffers

STEPS = 100_000  # more than are ever asked for


class Steps(Callback):
    """Tells of every optimiser step, or of every `batches`-th batch."""

    def __init__(self, batches: int = 1) -> None:
        self.turns, self.batches = Turns(), batches

    def on_train_batch_end(self, trainer, objective, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if (batch_idx + 1) % self.batches == 0:
            self.turns.step_done()


class AnyWords:
    """Stands for a tokenizer where nothing is read: no token ends an answer, so that all have one length."""

    stop_ids = ()

    def decode(self, ids, *, skip_special: bool) -> str:  # type: ignore[no-untyped-def]
        return " ".join(map(str, ids))


class Prompts:
    def __getitem__(self, number: int) -> Prompt:
        return Prompt((), tuple(words(ROWS["ppo"], number)[0]))


def main(kind: str, size: str, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_large_buffers()
    shape, rows = SIZES[size], ROWS[kind]
    config = TransformerConfig(
        VOCABULARY, hidden_size=shape.hidden_size, num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.feed_forward, max_position_embeddings=rows.length,
    )  # fmt: skip
    use_backend(fastest_backend(config, processor_name()))
    model = LanguageModel(config)
    objective, batches = policy(model) if kind == "ppo" else examples(kind, model, rows)
    steps = PASSES * MINIBATCHES if kind == "ppo" else None
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=STEPS, max_epochs=-1, callbacks=[Steps(steps or 1)], logger=False,
        gradient_clip_val=1.0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(objective, batches)


def optimization() -> Optimization:
    return Optimization(AdamWConfig(), ConstantSchedulerConfig(), 1e-5, 0.0, steps=STEPS, batch_size_tokens=1)


def examples(kind: str, model: LanguageModel, rows: Rows) -> tuple[Objective, ExampleBatches]:
    writer = ExampleWriter()
    answers = 1 if kind == "sft" else 2
    for number in range(EXAMPLES):
        prompt, *both = words(rows, number)
        for answer in both[:answers]:
            mask = [False] * len(prompt) + [True] * len(answer)
            writer.add(prompt + answer, mask, margin=float("nan"), probability=float("nan"))
    written = writer.write(Path(tempfile.mkdtemp()))
    if kind == "sft":
        objective: Objective = SupervisedFineTuning(model.train(), optimization(), SupervisedConfig())
        make = lambda indices, parts, mine: conversation_batches(written, indices, parts, mine)  # noqa: E731
    else:
        objective = DirectPreferenceOptimization(model, optimization(), PreferenceConfig())
        reference = -1500.0 + torch.randn(len(written))  # made before the first step here, as in TRL with precompute
        make = lambda pairs, parts, mine: preference_batches(written, pairs, parts, reference, mine)  # noqa: E731
    order = Reshuffled(EXAMPLES, "examples", 0)
    return objective, ExampleBatches(
        order, make, batch_size=rows.count, micro_batches=1, steps=STEPS, identity="benchmark"
    )


def policy(model: LanguageModel) -> tuple[Objective, object]:
    rows = ROWS["ppo"]
    config = PolicyConfig(
        rollout_batch_size=rows.count, ppo_epochs=PASSES, num_minibatches=MINIBATCHES,
        max_completion_length=rows.answer, normalize_scores=0,
        missing_eos_penalty=0.0, kl_coefficient=0.05,
    )  # fmt: skip
    tokenizer = AnyWords()
    reward = LearnedReward(ScalarModel.from_language_model(model, seed=1), tokenizer)
    objective = ProximalPolicyOptimization(
        model, optimization(), config, environment=Environment(config, tokenizer, Prompts(), reward),
        value=ScalarModel.from_language_model(model, seed=2),
    )  # fmt: skip
    return objective, objective.loader(RolloutSchedule(rows.count, PASSES, MINIBATCHES))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
