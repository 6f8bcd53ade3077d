"""Keys and options by their old names, so that a command line from before is answered with the new one.

docs/renamed.md is this table (`python -m maquette.artifacts.renamed > docs/renamed.md`; a test compares the two).
"""

_SECTIONS: dict[str, dict[str, str]] = {
    "Model": {
        "model.width": "model.hidden_size",
        "model.num_layers": "model.num_hidden_layers",
        "model.num_heads": "model.num_attention_heads",
        "model.head_width": "model.head_dim",
        "model.feed_forward_width": "model.intermediate_size",
        "model.rope_base": "model.rope_theta",
        "model.tied": "model.tie_word_embeddings",
    },
    "Data": {
        "tokenizer.vocabulary": "tokenizer.vocab_size",
        "data.context": "data.sequence_length",
        "data.batch_tokens": "data.batch_size_tokens",
        "data.micro_batch": "data.micro_batch_size",
        "data.isolate_documents": "data.document_masking",
        "mixture.alpha": "mixture.temperature",
        "mixture.phases.rope_base": "mixture.phases.rope_theta",
    },
    "Recipe": {
        "recipe.rate": "recipe.learning_rate",
        "recipe.rate_width": "recipe.lr_width_exponent",
        "recipe.rate_batch": "recipe.lr_batch_exponent",
        "recipe.base_batch": "recipe.base_batch_size_tokens",
        "recipe.batch_tokens": "recipe.batch_tokens_exponent",
        "recipe.fewest_steps": "recipe.min_steps",
        "recipe.longest_warmup": "recipe.max_warmup_steps",
        "recipe.base_width": "recipe.base_hidden_size",
        "recipe.base_head_width": "recipe.base_head_dim",
    },
    "Optimiser and learning rate schedule": {
        "optimizer.learning_rate": "optimizer.lr",
        "optimizer.kind": "optimizer",
        "optimizer.muon_learning_rate": "optimizer.muon_lr",
        "optimizer.beta1": "optimizer.betas",
        "optimizer.beta2": "optimizer.betas",
        "optimizer.clip": "trainer.gradient_clip_val",
        "schedule": "scheduler",
        "schedule.kind": "scheduler",
        "schedule.warmup": "scheduler.warmup",
        "schedule.decay": "scheduler.decay",
        "schedule.decay_shape": "scheduler.decay_shape",
        "schedule.branches": "scheduler.branches",
        "schedule.final": "scheduler.final",
    },
    "Objectives": {
        "objective.answer_tokens": "objective.max_completion_length",
        "objective.variant": "objective.loss_type",
        "objective.iterations": "objective.num_iterations",
        "objective.rollouts": "objective.rollout_batch_size",
        "objective.passes": "objective.ppo_epochs",
        "objective.minibatches": "objective.num_minibatches",
        "objective.discount": "objective.gamma",
        "objective.trace": "objective.gae_lambda",
        "objective.clip": "objective.clip_range",
        "objective.value_clip": "objective.clip_range_value",
        "objective.value_weight": "objective.vf_coef",
        "objective.entropy_weight": "objective.ent_coef",
        "objective.value_from": "objective.value_init",
        "objective.kl_kind": "objective.kl_estimator",
        "objective.stop_kl": "objective.target_kl",
        "objective.missing_end_penalty": "objective.missing_eos_penalty",
    },
    "Trainer, callbacks and loggers": {
        "trainer.log_steps": "trainer.log_every_n_steps",
        "trainer.validation_runs": "num_validations",
        "trainer.threads": "threads",
        "trainer.compile": "compile",
        "trainer.checkpoint_minutes": "callbacks.checkpoint.train_time_interval",
        "trainer.checkpoint_steps": "callbacks.checkpoint.every_n_train_steps",
        "trainer.keep_checkpoints": "callbacks.checkpoint.save_last_k",
        "trainer.samples": "callbacks.samples.prompts",
        "trainer.spike_factor": "callbacks.loss_spike.factor",
        "tracking": "logger",
        "tracking.uri": "logger.mlflow.tracking_uri",
        "tracking.experiment": "logger.mlflow.experiment_name",
        "tracking.run_name": "logger.mlflow.run_name",
        "tracking.parent": "logger.mlflow.parent_run_id",
        "tracking.enabled": "logger",
    },
    "Corpus and curation": {
        "corpus.judge": "corpus.validation_source",
        "curation.host_lines": "curation.boilerplate_lines",
        "curation.host_lines.pages": "curation.boilerplate_lines.pages",
        "curation.host_lines.share": "curation.boilerplate_lines.share",
        "curation.private": "curation.pii",
        "curation.private.replace": "curation.pii.replace",
        "curation.harmful": "curation.safety",
        "curation.harmful.action": "curation.safety.action",
        "curation.harmful.words": "curation.safety.words",
        "curation.harmful.classifier": "curation.safety.classifier",
    },
    "Other stages": {
        "answer_tokens": "max_completion_length",
        "protocol.batch_tokens": "protocol.batch_size_tokens",
        "curation.private": "curation.pii",
        "curation.private.replace": "curation.pii.replace",
        "curation.harmful": "curation.safety",
        "curation.harmful.action": "curation.safety.action",
        "curation.harmful.classifier": "curation.safety.classifier",
        "curation.harmful.words": "curation.safety.words",
    },
}
"""Old key -> new key, by the part of the settings."""

_OPTIONS = {
    "feedback=lecture": "feedback=alpacafarm",
    "feedback=long_winded": "feedback=length_biased",
    "source=madeweb": "source=synthetic_web",
}
"""Old option of a group -> new option."""

_NOTES = {
    "mixture.alpha": "1 / the old value: shares in proportion to tokens^(1/temperature)",
    "optimizer.beta1": "both in one list: [0.9, 0.99]",
    "optimizer.beta2": "both in one list: [0.9, 0.99]",
    "trainer.checkpoint_minutes": "{minutes: 2}",
    "tracking": "of training; other stages keep tracking",
    "tracking.uri": "of training; other stages keep tracking.uri",
    "tracking.experiment": "of training; other stages keep tracking.experiment",
    "tracking.run_name": "of training; other stages keep tracking.run_name",
    "tracking.parent": "of training; other stages keep tracking.parent",
    "tracking.enabled": "logger=none in training; other stages keep tracking.enabled",
}
"""What a new name alone does not say."""

RENAMED = {old: new for section in _SECTIONS.values() for old, new in section.items()}


def renamed_key(key: str) -> str | None:
    """The new name of a key, where it had another one."""
    return RENAMED.get(key)


def renamed_option(group: str, option: str) -> str | None:
    """`group=option` by its new name, where it had another one."""
    return _OPTIONS.get(f"{group}={option}")


def renaming_note(key: str) -> str:
    """What to know beside the new name of a key, in brackets; empty where there is nothing."""
    return f" ({_NOTES[key]})" if key in _NOTES else ""


def page() -> str:
    """docs/renamed.md."""
    parts = [
        "# Renamed keys",
        "The settings have the names that Lightning, Hugging Face, TRL and the papers use. A command line with an old "
        "name is answered with the new one.",
    ]
    for title, rows in (*_SECTIONS.items(), ("Options of groups", _OPTIONS)):
        lines = [f"| `{old}` | `{new}` | {_NOTES.get(old, '')} |".replace("|  |", "| |") for old, new in rows.items()]
        parts += [f"## {title}", "\n".join(["| old | new | note |", "|---|---|---|", *lines])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
