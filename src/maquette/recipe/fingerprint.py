"""What makes two runs the same: a digest of every setting that can change what comes out, of the data, and of the code.

A setting counts unless it is on one of the lists below, so a new one counts until somebody has thought about it:

- observers: loggers, progress, profilers, callbacks that only watch, names and folders;
- how the work is shared: devices, processes, threads, sequences in a forward pass;
- what counts by what it led to: the size by the architecture, the corpus by the digest of its tokens, a checkpoint by
  the digest of its weights, the recipe's constants by the numbers that came of them.

`trainer.max_steps`, `limit_*`, `overfit_batches` and `max_time` count, and so does a callback that stops training.
Code counts by its SHA-256 where a setting that counts names it and it is not ours (artifacts/code_digest.py). Settings
that mean nothing to an objective are not among the settings of its runs (objectives.py).

Nothing here imports torch, Lightning, or (but for callbacks that inherit what they are) the user's code.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import digest
from maquette.artifacts.targets import import_target, module_spec, split_target

OBSERVERS = (
    "name", "outputs", "force", "json", "tracking", "logger", "prediction", "suite", "protocol", "sweep",
    "profile_steps", "trainer.logger", "trainer.log_every_n_steps", "trainer.profiler", "trainer.default_root_dir",
    "trainer.enable_checkpointing", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.barebones",
    "trainer.num_sanity_val_steps", "trainer.model_registry", "trainer.enable_autolog_hparams",
)  # fmt: skip
"""Settings that only watch a run, or say where it is written and what is done with it afterwards."""

DEVICES = (
    "executor", "threads", "activation_checkpointing", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "tensor_parallel_size", "expert_parallel_size", "data.workers", "data.num_workers",
    "data.micro_batch_size", "data.pin_memory", "data.persistent_workers", "data.prefetch_factor",
)  # fmt: skip
"""Settings of where the work is done and how it is shared; two processes give what one does."""

BY_RESULT = (
    "size", "tokens", "compute", "tokens_per_parameter", "recipe", "checkpoint",
    "source", "corpus", "curation", "tokenizer", "pretokenized", "shards",
    "instructions", "preferences", "prompts.path", "prompts.subset", "prompts.split", "reward",
    "scheduler.branches",
)  # fmt: skip
"""Settings that count by what they led to: numbers of the recipe, digests of data and weights, runs of their own."""

WATCHING_CALLBACKS = frozenset(
    {"DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "OnExceptionCheckpoint",
     "ProgressBar", "RichModelSummary", "RichProgressBar", "ThroughputMonitor", "Timer", "TQDMProgressBar"}
)  # fmt: skip
"""Lightning's callbacks that change nothing (a Timer with a duration stops training, and counts). Ours change nothing;
of others those whose class says `changes_training = False`."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:[A-Za-z_][\w.]*)?|[A-Za-z_]\w*:[A-Za-z_][\w.]*")


def counted_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's resolved settings that counts.

    A setting that is null is as good as absent, so that a new one does not change what older runs are."""
    counted = without(settings, (*OBSERVERS, *DEVICES, *BY_RESULT))
    if "callbacks" in counted:
        counted["callbacks"] = _chosen(counted["callbacks"], changes_training)
    trainer = counted.get("trainer")
    if isinstance(trainer, dict):
        for key, counts in (("callbacks", changes_training), ("plugins", _is_no_sharing)):
            if key in trainer:
                trainer[key] = _chosen(trainer[key], counts)
    pruned = _pruned(counted)
    assert isinstance(pruned, dict)
    return pruned


def counted_code(settings: Mapping[str, Any], *named: str) -> dict[str, str]:
    """Module -> SHA-256 of the code that is not ours: what settings that count, the reward, or `named` call for."""
    also = {*named, *_targets(settings.get("reward"), "reward"), *_targets(settings.get("model"), "model")}
    return code_digest(counted_settings(settings), *sorted(also))


def fingerprint(
    settings: Mapping[str, Any], results: Mapping[str, Any], digests: Mapping[str, str], code: Mapping[str, str]
) -> str:
    """Digest of a run. `settings`: those that count; `results`: what the others led to; `digests`: of its data."""
    return digest({"settings": settings, "results": results, "digests": dict(digests), "code": dict(code)})


def without(settings: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A copy without the settings under `keys`, each a dotted key or a whole group."""
    dropped = frozenset(keys)

    def copy(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: copy(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
            for key, value in part.items()
            if f"{prefix}{key}" not in dropped
        }

    return copy(settings, "")


def changes_training(callback: Any) -> bool:
    """Whether a callback, as the settings have it, can change what comes out of a run."""
    target = callback.get("_target_") if isinstance(callback, Mapping) else None
    if not isinstance(target, str):
        return True
    module, name = re.split(r"[.:](?=[^.:]*$)", target) if re.search(r"[.:]", target) else ("", target)
    root = module.split(".")[0]
    if root in ("lightning", "pytorch_lightning"):
        return name not in WATCHING_CALLBACKS or (name == "Timer" and callback.get("duration") is not None)
    if root == "maquette":  # the project's own only watch
        return False
    declared = _declared(target)
    if declared is None:
        declared = bool(getattr(import_target(target), "changes_training", True))
    return declared


def _declared(target: str) -> bool | None:
    """What the source of a class says of `changes_training`, without importing it; None where that can't be seen."""
    module, path = split_target(target)
    spec = module_spec(module)
    if spec is None or spec.origin is None or len(path) != 1 or not Path(spec.origin).is_file():
        return None
    try:
        body = ast.parse(Path(spec.origin).read_bytes()).body
    except (SyntaxError, ValueError):
        return None
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == path[0]:
            for line in node.body:
                names = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                if any(isinstance(name, ast.Name) and name.id == "changes_training" for name in names):
                    value = getattr(line, "value", None)
                    return bool(value.value) if isinstance(value, ast.Constant) else None
            plain = all(ast.unparse(base).split(".")[-1] == "Callback" for base in node.bases)
            return True if plain else None
    return None


def _is_no_sharing(plugin: Any) -> bool:
    """Whether a plugin of the Trainer is about more than processes and files (cluster environments, writing of
    checkpoints): a precision, for instance."""
    target = str(plugin.get("_target_", "")) if isinstance(plugin, Mapping) else str(plugin)
    return not (target.startswith("maquette.") or target.endswith(("Environment", "CheckpointIO")))


def _chosen(group: Any, counts: Callable[[Any], bool]) -> list[Any]:
    """Those parts of a group of `_target_`s that count, whatever they are called: a table by name, a list, or one."""
    if isinstance(group, Mapping) and "_target_" not in group:
        group = list(group.values())
    items = group if isinstance(group, list | tuple) else [group]
    return sorted((one for one in items if one is not None and counts(one)), key=digest)


def _targets(part: Any, key: str) -> set[str]:
    """Dotted names of a user's own, however deep: `model.activation=package.module.function`."""
    if isinstance(part, Mapping):
        inner = {f"{key}.{name}": value for name, value in part.items() if name != "_target_"}
        return {target for name, value in inner.items() for target in _targets(value, name)}
    return {part} if isinstance(part, str) and _DOTTED.fullmatch(part) and not key.endswith("checkpoint") else set()


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        pruned = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item is not None and item != {} and item != []}
    return [_pruned(item) for item in value] if isinstance(value, list | tuple) else value
