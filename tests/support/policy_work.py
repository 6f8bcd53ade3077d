"""A policy's iterations in one process or in several, for a test that compares the two."""

from typing import Any

from maquette.data.process_group import ProcessGroup, join_group, process_group

VARIANTS: dict[str, dict[str, Any]] = {
    "value": {"whiten_rewards": True, "target_kl": 0.002, "kl_target": 0.05, "kl_horizon": 20, "ent_coef": 0.01},
    "group": {
        "advantage": "group", "group_size": 2, "normalizer": "completions", "mask_truncated": True,
        "resample_groups": 1, "micro_batches": 2,
    },
    "rloo": {"advantage": "rloo", "group_size": 4, "ratio": "completion", "normalizer": "constant"},
    "online": {"objective": "online_dpo"},
}  # fmt: skip


def train_policies(learning_rate: float) -> dict[str, tuple[list[dict[str, float]], list[float]]]:
    """What the first process shows of each step of every variant, and all weights at the end."""
    return {name: _train(dict(variant), learning_rate) for name, variant in VARIANTS.items()}


def _train(settings: dict[str, Any], learning_rate: float) -> tuple[list[dict[str, float]], list[float]]:
    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch import Trainer

    from maquette.objectives.config import OnlinePreferenceConfig
    from maquette.objectives.online_dpo import OnlinePreferenceOptimization
    from maquette.objectives.rollouts import RolloutSchedule
    from support.list_logger import ListLogger
    from support.policies import tiny_model, tiny_ppo

    torch.set_num_threads(1)
    world = process_group()
    if world.size > 1:
        join_group("gloo")
    passes, online = settings.pop("micro_batches", 1), settings.pop("objective", None) == "online_dpo"
    module: Any = tiny_ppo(tiny_model(scale=3.0), learning_rate=learning_rate, seed=5, **({} if online else settings))
    environment, config = module.environment, module.config
    environment.group = ProcessGroup(world.rank, world.size)
    if online:
        config = environment.config = OnlinePreferenceConfig(
            rollout_batch_size=8, max_completion_length=6, normalize_scores=7
        )
        module = OnlinePreferenceOptimization(module.model, module.optimization, config, environment=environment)
    schedule = RolloutSchedule(
        8 // world.size, config.ppo_epochs, config.num_minibatches, passes, config.unit, world.size
    )
    logger = ListLogger()
    many = world.size > 1
    trainer = Trainer(
        accelerator="cpu", devices=world.size, strategy="ddp" if many else "auto", max_epochs=3,
        plugins=[TorchElasticEnvironment() if many else LightningEnvironment()], accumulate_grad_batches=passes,
        gradient_clip_val=1.0, logger=[logger] if world.is_first else False, log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, module.loader(schedule))
    weights = torch.cat([one.detach().flatten() for one in module.parameters()]).tolist()
    return logger.rows, weights
