"""A small policy's whole training, as a program of its own that a test can kill in the middle of anything.

Arguments: the folder to work in, and the changes of the policy's settings as JSON, `objective` among them where it is
not PPO. Each time answers are scored, it
leaves a file `scored-<n>` there, and waits a moment as a slow reward would.
"""

import dataclasses
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from maquette.data.conversations import Prompt, render_prompt
from maquette.model import hf
from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import FlopCount, count_parameters
from maquette.model.heads import LanguageModel, ScalarModel
from maquette.model.loading import load_reward_model
from maquette.objectives.completions import Completion
from maquette.objectives.config import OBJECTIVES
from maquette.optimization.config import AdamWConfig, LinearSchedulerConfig
from maquette.recipe.pretraining import Recipe
from maquette.recipe.run_spec import RunSpec
from maquette.text.config import TokenizerConfig
from maquette.text.tokenizer import Tokenizer
from maquette.text.training import train_tokenizer
from maquette.training import Job, fit
from maquette.training.config import PrecisionConfig, TrainerConfig
from maquette.training.devices import choose_hardware
from maquette.training.policy import PolicyFeedback, PolicyPlan
from maquette.training.record import begin_record
from support.small_runs import default_callbacks


class Letters:
    """Prompts of a few letters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getitem__(self, number: int) -> Prompt:
        numbers = random.Random(number)
        text = "".join(numbers.choice("abc") for _ in range(numbers.randint(1, 6)))
        return render_prompt(self.tokenizer, [{"role": "user", "content": text}])


class Slow:
    """The share of the letter a in an answer; leaves a trace of every call."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds, self.calls = folder, seconds, 0

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        self.calls += 1
        (self.folder / f"scored-{self.calls}").touch()
        time.sleep(self.seconds)
        return [one.answer.count("a") / max(1, len(one.answer)) + 0.01 * len(one.answer_ids) for one in completions]


REWARD = "reward"
"""Of a reward model that a value function starts from, where there is one."""


@dataclasses.dataclass(frozen=True)
class LetterFeedback:
    folder: Path
    seconds: float

    def open(self, tokenizer: Tokenizer, context: int, max_completion_length: int) -> PolicyFeedback:
        def measure(model: LanguageModel, reference: LanguageModel) -> Mapping[str, float]:
            return {"norm": float(model.head_weight.norm())}

        letters = Letters(tokenizer)
        place = self.folder / REWARD
        value = load_reward_model(place)[0] if place.exists() else None
        return PolicyFeedback(
            letters, Slow(self.folder, self.seconds), value, measure, (letters[-1], letters[-2]),
            None if value is None else str(place),
        )  # fmt: skip


def make_job(
    folder: Path, changes: dict[str, Any], *, seconds: float = 0.0, adapter: dict[str, Any] | None = None
) -> Job:
    """Six iterations of two passes over eight answers, saved after every third step. With `value_init: reward` there is
    a reward model to start from."""
    start = folder / "start"
    if not start.exists():
        tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
        config = TransformerConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
        hf.save(LanguageModel(config), tokenizer, start)
        if changes.get("value_init") == "reward":
            hf.save(ScalarModel.from_language_model(LanguageModel(config, seed=7), seed=8), tokenizer, folder / REWARD)
    settings = dict(changes)
    objective = settings.pop("objective", "ppo")
    if objective == "ppo":
        settings = {"value_init": "policy", "kl_target": 0.1, "kl_horizon": 50} | settings
    common = {"num_iterations": 6, "rollout_batch_size": 8, "max_completion_length": 6, "normalize_scores": 8}
    config: Any = OBJECTIVES[objective](**(common | {"ppo_epochs": 2} | settings))
    trainer = TrainerConfig(log_every_n_steps=1)
    callbacks = default_callbacks(checkpoint__every_n_train_steps=3)
    steps, architecture = config.num_iterations * config.ppo_epochs * config.num_minibatches, hf.load(start).config
    recipe = Recipe(
        architecture=architecture, parameters=count_parameters(architecture), tokens=100 * steps, steps=steps,
        batch_size_tokens=100, learning_rate=3e-3, warmup=0.1, weight_decay=0.0, flops=FlopCount(10**9, 0, 0),
    )  # fmt: skip
    spec = RunSpec.of(
        recipe,
        {"seed": 3, "adapter": adapter},
        label="policy",
        objective=objective,
        tokenizer=str(start),
        digests={},
        checkpoint=str(start),
    )
    spec = dataclasses.replace(spec, name="policy")
    job = Job(
        spec=spec, outputs=folder, plan=PolicyPlan(config, LetterFeedback(folder, seconds)),
        hardware=choose_hardware(trainer, PrecisionConfig(), threads=1), optimizer=AdamWConfig(eps=1e-5),
        scheduler=LinearSchedulerConfig(), trainer=trainer,
        num_validations=2, callbacks=callbacks,
    )  # fmt: skip
    if not (job.folder / "run.json").exists():
        begin_record(spec, job.folder).save()
    return job


if __name__ == "__main__":
    fit(make_job(Path(sys.argv[1]), json.loads(sys.argv[2]), seconds=0.3))
