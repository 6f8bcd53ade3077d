"""Adapters on the core's linear layers, by the library `peft`: LoRA (Hu et al. 2021) and its relatives.

    adapter=lora        a peft.LoraConfig: y = W x + (alpha / r) B A x, where A and B alone are trained, B from zero

With B at zero the model begins as what it was, so a policy's reference is the same weights without the adapter. What a
run exports is merged, W + (alpha / r) B A, beside the adapter alone in PEFT's format. The head and the embedding are
not adapted unless they are named in `target_modules`.

A checkpoint of training holds what is trained, and the digest of the weights beside it, which lie in the folder that
the run started from.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import load_table, reading, short
from maquette.artifacts.targets import build
from maquette.model.experts import StackedLinear
from maquette.model.heads import LanguageModel, Model, ScalarModel

if TYPE_CHECKING:
    from maquette.model.hf.family import ModelFamily

LAYERS = ("query", "key", "value", "output", "gate", "up", "down")
"""The linear layers of a block, in this project's names. Of a mixture of experts those of attention are adapted."""

_CHANGE_THE_MODEL = ("bias", "modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters")
_LEAVE_THE_WEIGHTS = (None, True, "gaussian", "orthogonal")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_IN_FILE = "base_model.model."


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise ConfigError("Adapters need the library peft.", "pip install 'maquette-lm[real]'") from None
    return peft


def attach(model: nn.Module, node: Mapping[str, Any], *, seed: int = 0) -> None:
    """Puts the adapter that a node describes (`_target_: peft.LoraConfig`, ...) into the model, in place; nothing else
    is trained from then on but a scalar model's score. A pure function of the seed.

    Raises `ConfigError` where `peft` is missing, or refuses the settings or the names of layers; and for settings that
    change the model itself (`bias`, `modules_to_save`, an `init_lora_weights` that takes from the weights), since then
    it would no longer be there with the adapter off.
    """
    peft = _peft()
    for key in _CHANGE_THE_MODEL:
        if node.get(key) not in (None, "none", [], False):
            raise ConfigError(f"adapter.{key} would train the model's own weights.", "Leave it out.")
    if node.get("init_lora_weights") not in _LEAVE_THE_WEIGHTS:
        raise ConfigError(
            f"adapter.init_lora_weights={node['init_lora_weights']} changes the model's own weights.",
            f"Allowed: {', '.join(str(value).lower() for value in _LEAVE_THE_WEIGHTS[1:])}.",
        )
    stacked = {name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, StackedLinear)}
    layers = node.get("target_modules") or [layer for layer in LAYERS if layer not in stacked]
    if named := [layer for layer in layers if layer in stacked]:
        raise ConfigError(
            f"adapter.target_modules names {named[0]}, whose matrices are a stack, one for each expert.",
            f"Adapters go on {', '.join(layer for layer in LAYERS if layer not in stacked)} of a mixture of experts.",
        )
    config = build(dict(node), key="adapter", target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ConfigError(f"adapter: {short(error)}", f"A block's layers: {', '.join(LAYERS)}.") from None
    names = {name.rpartition(".")[2] for name in adapted(model)}
    if "embedding" in names or ("head" in names and not _adds_to_weight(model.get_submodule("head"))):
        raise ConfigError(
            "adapter.target_modules names the embedding, or a head that shares its matrix.",
            "Name layers of the blocks, or plain LoRA (without use_dora) on the head of an untied model.",
        )
    if isinstance(model, ScalarModel):
        model.score.requires_grad_(True)


def _adds_to_weight(layer: Any) -> bool:
    """Whether it is W x + scale B A x and nothing else, of a matrix of its own."""
    return layer.get_base_layer().weight is not None and not getattr(layer, "use_dora", {}).get("default", False)


def adapted(model: nn.Module) -> dict[str, Any]:
    """The model's adapted layers (`peft`'s modules around the linear ones), by name; empty without an adapter."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "get_base_layer")}


def without_adapter(model: Model) -> Model:
    """The model as it is with the adapter off, sharing every tensor with it: one copy of the weights serves both."""
    with torch.device("meta"):
        plain = type(model)(model.config)
    layers = tuple(f"{name}." for name in adapted(model))
    for name, parameter in model.named_parameters():
        if ".base_layer." in name or not name.startswith(layers):
            owner, _, last = name.replace(".base_layer.", ".").rpartition(".")
            setattr(plain.get_submodule(owner), last, parameter)
    return plain.eval()


def merged(model: Model) -> Model:
    """A copy in which each adapted layer is the plain linear layer that does the same."""
    model = copy.deepcopy(model)
    for name, layer in adapted(model).items():
        layer.merge()
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, layer.get_base_layer())
    return model


def save_adapter(
    model: LanguageModel | ScalarModel, node: Mapping[str, Any], family: "ModelFamily", folder: Path, base: Path | None
) -> bool:
    """Writes the adapter alone as PEFT reads it over the family's model in `transformers`, and that it is one of the
    model in `base`: over another, as the one before a first fine-tuning, it would do something else.

    False, and nothing written, where the family stores several of our layers in one matrix (GPT-2), so that there is no
    layer of theirs to adapt.
    """
    from safetensors.torch import save_file

    names, config = _their_names(model, family), build(dict(node), key="adapter")
    if config.peft_type != "LORA" or not all(layer in names for layer in adapted(model)):
        return False
    tensors = {}
    for layer, module in adapted(model).items():
        for name, value in module.state_dict().items():
            if not name.startswith("base_layer."):
                tensors[f"{_IN_FILE}{names[layer]}.{name.replace('.default', '')}"] = value.detach().cpu().contiguous()
    last = {layer.rpartition(".")[2]: names[layer].rpartition(".")[2] for layer in adapted(model)}
    config.rank_pattern, config.alpha_pattern = (
        {".".join(last.get(part, part) for part in key.split(".")): value for key, value in pattern.items()}
        for pattern in (config.rank_pattern, config.alpha_pattern)
    )
    config.target_modules = {names[layer].rpartition(".")[2] for layer in adapted(model)}
    config.task_type = "CAUSAL_LM" if isinstance(model, LanguageModel) else "SEQ_CLS"
    config.inference_mode = True
    config.base_model_name_or_path = None if base is None else str(base.absolute())
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return True


def load_adapter(model: Model, family: "ModelFamily", folder: Path) -> Model:
    """The model with an adapter out of a folder in PEFT's format, merged.

    Raises `StageError` for a file that is missing or damaged, and an adapter of another model.
    """
    from safetensors.torch import load_file

    hint = "Is this the folder of an adapter of this model?"
    settings = load_table(folder / CONFIG, hint=hint)
    with reading(folder / WEIGHTS, hint=hint):
        tensors = load_file(folder / WEIGHTS)
    ours = {theirs: name for name, theirs in _their_names(model, family).items()}
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        layer, _, rest = name.removeprefix(_IN_FILE).partition(".lora_")
        if layer not in ours or not rest:
            raise StageError(f"{folder / WEIGHTS}: {short(name)} is not a layer of this model.", hint)
        layers.setdefault(ours[layer], {})[f"lora_{rest}"] = value
    model = copy.deepcopy(model)
    last = {theirs.rpartition(".")[2]: name.rpartition(".")[2] for theirs, name in ours.items()}
    known = {key: value for key, value in settings.items() if key not in ("target_modules", "auto_mapping")}
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = known.get(key) or {}
        known[key] = {".".join(last.get(part, part) for part in name.split(".")): pattern[name] for name in pattern}
    with reading(folder / CONFIG, hint=hint):
        config = cast("Any", _peft().LoraConfig(**known, target_modules=sorted(layers)))
    config.inference_mode = False
    with reading(folder / CONFIG, hint=hint):
        _peft().inject_adapter_in_model(config, model)
    state = model.state_dict()
    missing = {name for name in state if ".lora_" in name}
    for layer, values in layers.items():
        for name, value in values.items():
            stem, _, end = name.rpartition(".")
            full = f"{layer}.{stem}.default.{end}" if end in ("weight", "bias") else f"{layer}.{name}.default"
            full = full if full in state else f"{full}.weight"
            if full not in state or state[full].shape != value.shape:
                raise StageError(f"{folder / WEIGHTS}: {layer} has another shape than the adapter's {name}.", hint)
            state[full].copy_(value)
            missing.discard(full)
    if missing:
        raise StageError(f"{folder / WEIGHTS} lacks {min(missing)}.", hint)
    return merged(model)


def _their_names(model: LanguageModel | ScalarModel, family: "ModelFamily") -> dict[str, str]:
    """Our linear layers that are one of theirs: our name -> theirs."""
    if family.tensors is None:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        return {name: name for name in [*linear, *adapted(model)]}
    return {
        stored.ours[0].removesuffix(".weight"): stored.name.removesuffix(".weight")
        for stored in family.tensors(model.config)
        if len(stored.ours) == 1
        and stored.ours[0].endswith(".weight")
        and not stored.transposed
        and stored.expert is None
    }
