"""Adapters on the core's linear layers, by the library `peft`: LoRA (Hu et al. 2021) and its relatives.

    adapter=lora        a peft.LoraConfig: y = W x + (alpha / r) B A x, where A and B alone are trained, B from zero

With B at zero the model begins as what it was, so a policy's reference is the same weights without the adapter. What a
run exports is merged, W + (alpha / r) B A, beside the adapter alone in PEFT's format. The head and the embedding are
not adapted unless they are named in `target_modules`.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import load_table, reading, short
from maquette.artifacts.targets import build
from maquette.model.heads import LanguageModel, ScalarModel

if TYPE_CHECKING:
    from maquette.model.hf.family import ModelFamily

Model = TypeVar("Model", LanguageModel, ScalarModel)

LAYERS = ("query", "key", "value", "output", "gate", "up", "down")
"""The linear layers of a block, in this project's names."""

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

    Raises `ConfigError` where `peft` is missing, or refuses the settings or the names of layers.
    """
    peft = _peft()
    config = build(dict(node), key="adapter", target_modules=node.get("target_modules") or list(LAYERS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ConfigError(f"adapter: {short(error)}", f"A block's layers: {', '.join(LAYERS)}.") from None
    if isinstance(model, ScalarModel):
        model.score.requires_grad_(True)


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
    model: LanguageModel | ScalarModel, node: Mapping[str, Any], family: "ModelFamily", folder: Path
) -> bool:
    """Writes the adapter alone as PEFT reads it over the family's model in `transformers`.

    False, and nothing written, where the family stores several of our layers in one matrix (GPT-2), so that there is no
    layer of theirs to adapt.
    """
    from safetensors.torch import save_file

    names = _their_names(model, family)
    if not all(layer in names for layer in adapted(model)):
        return False
    tensors = {}
    for layer, module in adapted(model).items():
        for name, value in module.state_dict().items():
            if not name.startswith("base_layer."):
                tensors[f"{_IN_FILE}{names[layer]}.{name.replace('.default', '')}"] = value.detach().cpu().contiguous()
    config = build(dict(node), key="adapter")
    config.target_modules = {names[layer].rpartition(".")[2] for layer in adapted(model)}
    config.task_type = "CAUSAL_LM" if isinstance(model, LanguageModel) else "SEQ_CLS"
    config.inference_mode = True
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
    known = {key: value for key, value in settings.items() if key not in ("target_modules", "auto_mapping")}
    with reading(folder / CONFIG, hint=hint):
        config = cast("Any", _peft().LoraConfig(**known, target_modules=sorted(layers)))
    config.inference_mode = False
    with reading(folder / CONFIG, hint=hint):
        _peft().inject_adapter_in_model(config, model)
    state = model.state_dict()
    for layer, values in layers.items():
        for name, value in values.items():
            stem, _, last = name.rpartition(".")
            full = f"{layer}.{stem}.default.{last}" if last in ("weight", "bias") else f"{layer}.{name}.default"
            if full not in state or state[full].shape != value.shape:
                raise StageError(f"{folder / WEIGHTS}: {layer} has another shape than the adapter's {name}.", hint)
            state[full].copy_(value)
    return merged(model)


def _their_names(model: LanguageModel | ScalarModel, family: "ModelFamily") -> dict[str, str]:
    """Our linear layers that are one of theirs: our name -> theirs."""
    if family.tensors is None:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        return {name: name for name in [*linear, *adapted(model)]}
    return {
        stored.ours[0].removesuffix(".weight"): stored.name.removesuffix(".weight")
        for stored in family.tensors(model.config)
        if len(stored.ours) == 1 and stored.ours[0].endswith(".weight") and not stored.transposed
    }
