"""A tiny policy over bytes, prompts for it, and rewards that a program can tell."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from maquette.data.conversations import Prompt, render_prompt
from maquette.model import LanguageModel, ScalarModel, TransformerConfig
from maquette.objectives.base import Optimization
from maquette.objectives.completions import Completion
from maquette.objectives.config import PolicyConfig
from maquette.objectives.environment import Environment
from maquette.objectives.ppo import ProximalPolicyOptimization
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENIZER: Tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))


class Prompts:
    """Letters to answer, of different lengths."""

    def __getitem__(self, number: int) -> Prompt:
        numbers = random.Random(number)
        text = "".join(numbers.choice("abc") for _ in range(numbers.randint(1, 6)))
        return render_prompt(TOKENIZER, [{"role": "user", "content": text}], {"text": text})


def share_of_a(completions: Sequence[Completion]) -> list[float]:
    """How much of an answer is the letter a; 0 for an empty one."""
    return [one.answer.count("a") / max(1, len(one.answer)) for one in completions]


def tiny_model(*, seed: int = 0, dropout: float = 0.0, scale: float = 1.0, **changes: Any) -> LanguageModel:
    config = TransformerConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=48, dropout=dropout, **changes,
    )  # fmt: skip
    model = LanguageModel(config, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def tiny_value(model: LanguageModel) -> ScalarModel:
    return ScalarModel.from_language_model(model, seed=1)


def tiny_ppo(
    model: LanguageModel | None = None, *, learning_rate: float = 1e-3, reward: Any = share_of_a, steps: int = 100,
    seed: int = 0, **settings: Any,
) -> ProximalPolicyOptimization:  # fmt: skip
    model = model or tiny_model()
    config = PolicyConfig(**{
        "rollout_batch_size": 8, "max_completion_length": 6, "normalize_scores": 8, "value_init": "policy",
        "value_learning_rate": learning_rate, **settings,
    })  # fmt: skip
    config.validate()
    optimization = Optimization(
        AdamWConfig(eps=1e-5), ConstantSchedulerConfig(), learning_rate=learning_rate, weight_decay=0.0, steps=steps,
        batch_size_tokens=1,
    )  # fmt: skip
    environment = Environment(config, TOKENIZER, Prompts(), reward, seed)
    return ProximalPolicyOptimization(
        model, optimization, config, environment=environment, value=tiny_value(model)
    )  # fmt: skip


def trainer(
    *, epochs: int, accumulate: int = 1, callbacks: Sequence[Any] = (), loggers: Sequence[Logger] = ()
) -> Trainer:
    """As a run's: with clipped gradients. Logs every step."""
    return Trainer(
        accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=accumulate, logger=list(loggers) or False,
        gradient_clip_val=1.0, log_every_n_steps=1, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
