"""`RunSpec`: what one run is, in one frozen value. Prediction, sweep, resuming, tracker and report read it.

A recipe (every number), and what it is applied to: an objective, settings, data and code. Its fingerprint
(fingerprint.py) tells it from every other run, and gives it its name and its folder `<outputs>/runs/<name>`. Nothing
about it changes while it trains; what comes out is the run's record (training/record.py). Free of torch.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import without_secrets
from maquette.artifacts.run_file import TRIED
from maquette.artifacts.settings import flatten
from maquette.model.architecture import CustomConfig, TransformerConfig, describe_architecture, read_architecture
from maquette.model.core_config import FlopCount, ParameterCount
from maquette.model.parametrization import Parametrization
from maquette.recipe.fingerprint import counted_code, counted_settings, fingerprint, without
from maquette.recipe.objectives import entry_of
from maquette.recipe.pretraining import Recipe

OF_THE_COMMAND = ("force", "sweep", "suite", "protocol")
"""Settings of one command: none of the run that it trains."""

CODE_CHANGED = "has changed"
"""How a difference between two runs ends that is one of code."""

_MULTIPLES = ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class RunSpec(Recipe):
    """A run. `settings`: the resolved ones, plain containers, with the recipe's numbers in them and without those that
    mean nothing to the objective. `digests`: of the data, and of the weights it starts from. `code`: SHA-256 of the
    modules that are not ours. `checkpoint`: the folder with the initial weights; `tokenizer`: the tokenizer's folder.
    Both say where things are found and count by their digests. `prediction`: digest of the one that was written of it.
    """

    name: str
    objective: str
    settings: dict[str, Any]
    tokenizer: str
    fingerprint: str
    checkpoint: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    prediction: str | None = None

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        settings: Mapping[str, Any],
        *,
        label: str,
        objective: str,
        tokenizer: str,
        digests: Mapping[str, str],
        checkpoint: str | None = None,
    ) -> "RunSpec":
        """The run of a recipe. `settings`: all of a `maquette train`, as plain containers; `label`: its name's start.

        Raises `ConfigError` where a setting names code that is not there.
        """
        resolved = resolved_settings(settings, recipe, objective) | {"checkpoint": checkpoint}
        code = counted_code(resolved, *recipe.architecture.own_code)
        identity = fingerprint(counted_settings(resolved), _results(recipe), digests, code)
        return cls(
            **{entry.name: getattr(recipe, entry.name) for entry in dataclasses.fields(Recipe)},
            name=f"{label}-{identity[:8]}",
            objective=objective,
            settings=resolved,
            tokenizer=tokenizer,
            fingerprint=identity,
            checkpoint=checkpoint,
            digests=dict(digests),
            code=code,
        )

    def folder(self, outputs: Path | str) -> Path:
        """Where it lies; of a run that is only tried out a place where no other run is looked for."""
        return Path(outputs) / (TRIED if self.is_trial else "runs") / self.name

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def label(self) -> str:
        """The name without the fingerprint: what runs that differ in details have in common."""
        return self.name.removesuffix(f"-{self.fingerprint[:8]}")

    @property
    def architecture_kind(self) -> str:
        """What sort of model it is, in words: models of one kind train at comparable speeds."""
        return self.architecture.description

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence: of pretraining's; afterwards what the model can read at most."""
        data = self.settings.get("data") or {}
        return int(data.get("sequence_length") or self.architecture.max_position_embeddings)

    @property
    def precision(self) -> str:
        """Number format of training."""
        explicit = (self.settings.get("trainer") or {}).get("precision")
        return str(explicit or (self.settings.get("precision") or {}).get("kind", "fp32"))

    @property
    def is_trial(self) -> bool:
        """Whether it is only tried out (`trainer.fast_dev_run`): then it never counts as finished."""
        return bool((self.settings.get("trainer") or {}).get("fast_dev_run"))

    @property
    def params(self) -> dict[str, Any]:
        """The tracker's parameters: the settings, and the numbers that laws are made of. N counts what a token uses;
        `N_total` is N with the experts that it does not go through; V tokens are in the vocabulary."""
        counts = self.parameters
        return {
            **self.settings,
            "N": self.size, "N_core": counts.core, "N_head": counts.head, "N_embedding": counts.embedding,
            "V": self.architecture.vocab_size, "D": self.tokens, "C": self.compute, "C_kaplan": self.kaplan_compute,
            "steps": self.steps,
            **({"N_total": self.size + counts.inactive} if counts.inactive else {}),
        }  # fmt: skip

    @property
    def datasets(self) -> dict[str, str]:
        """What it was trained on: digests, by the name of the file, folder or kind that it came from."""
        sections = {"tokens": "source", "examples": entry_of(self.objective).section, "prompts": "prompts"}
        digests = {}
        for kind, section in sections.items():
            if kind in self.digests:
                chosen = self.settings.get(section) or {}
                name = Path(chosen["path"]).stem if chosen.get("path") else str(chosen.get("kind") or "own")
                digests[f"{name} ({section if kind == 'examples' else kind})"] = self.digests[kind]
        return digests

    def differences(self, other: "RunSpec") -> list[str]:
        """In what this run is not the other one: `optimizer.lr (0.001, was 0.002)`, `tokens (other data)`,
        `package.module has changed`. Empty where their fingerprints are the same."""
        settings = _changes(counted_settings(self.settings), counted_settings(other.settings))
        results = _changes(_results(self), _results(other))
        named = {key.rpartition(".")[2] for key in settings}
        words = [f"{key} ({new}, was {old})" for key, (new, old) in settings.items()]
        words += [
            f"{key} ({new}, was {old})" for key, (new, old) in results.items() if key.rpartition(".")[2] not in named
        ]
        words += [f"{key} (other data)" for key in _changes(self.digests, other.digests)]
        names = sorted(self.code | other.code)
        words += [f"{key} {CODE_CHANGED}" for key in names if self.code.get(key) != other.code.get(key)]
        return words

    def to_json(self) -> dict[str, Any]:
        """Plain containers, which JSON keeps as they are."""
        content = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("parameters", "flops", "parametrization"):
            content[name] = dataclasses.asdict(content[name])
        return content | {"architecture": describe_architecture(self.architecture)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunSpec":
        """The spec that `to_json` wrote. Raises `TypeError`, `KeyError` or `ValueError` where it is not one."""
        return cls(
            **dict(content)
            | {
                "architecture": read_architecture(content["architecture"]),
                "parameters": ParameterCount(**content["parameters"]),
                "flops": FlopCount(**content["flops"]),
                "parametrization": Parametrization(**content["parametrization"]),
            }
        )


def resolved_settings(settings: Mapping[str, Any], recipe: Recipe, objective: str) -> dict[str, Any]:
    """A run's settings: the recipe's numbers in place of the nulls, without those that mean nothing to the objective.

    Plain containers as JSON has them, so that what is read from a file is what was written."""
    left = without(settings, (*OF_THE_COMMAND, *entry_of(objective).unused))
    settings_left: dict[str, Any] = json.loads(without_secrets(json.dumps(left, default=str)))
    if "model" in settings_left:
        shape = dataclasses.asdict(recipe.architecture) | describe_architecture(recipe.architecture)  # lists of tuples
        if isinstance(recipe.architecture, TransformerConfig):
            shape["intermediate_size"] = recipe.architecture.inner_width
        settings_left["model"] |= {key: value for key, value in shape.items() if key in settings_left["model"]}
        if "kind" in settings_left["model"]:
            custom = isinstance(recipe.architecture, CustomConfig)
            settings_left["model"]["kind"] = recipe.architecture.description if custom else recipe.architecture.kind
    if "tokens" in settings_left:
        settings_left["tokens"], settings_left["compute"] = str(recipe.tokens), None
    if "batch_size_tokens" in settings_left.get("data", {}):
        settings_left["data"]["batch_size_tokens"] = recipe.batch_size_tokens
    if "optimizer" in settings_left:
        settings_left["optimizer"] |= {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if "warmup" in settings_left.get("scheduler", {}):  # a scheduler of a user's may have none
        settings_left["scheduler"]["warmup"] = recipe.warmup
    return settings_left


def label_of(count: int) -> str:
    """A count in two digits: 6000000 -> 6m, 1234 -> 1.2k."""
    for unit, name in _MULTIPLES:
        if count >= 0.995 * unit:
            return f"{float(f'{count / unit:.2g}'):g}{name}"
    return str(count)


def _results(recipe: Recipe) -> dict[str, Any]:
    """What settings that are not counted themselves led to."""
    return {
        "architecture": describe_architecture(recipe.architecture),
        "parametrization": dataclasses.asdict(recipe.parametrization),
        "tokens": recipe.tokens,
    }


def _changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> the two values, where they differ."""
    flat_new, flat_old = flatten(new), flatten(old)
    return {
        key: (flat_new.get(key), flat_old.get(key))
        for key in flat_new | flat_old
        if flat_new.get(key) != flat_old.get(key)
    }
