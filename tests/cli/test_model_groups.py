"""`conf/model/*.yaml`: each option is the model that its comment says it is, and goes out as the family it names."""

from typing import Any

import pytest

from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.help import config_folders
from maquette.cli.command_line.registry import STAGES
from maquette.model import ModelConfig, hf
from maquette.recipe.pretraining import resolve

EXPORTS = {
    "transformer": "MaquetteForCausalLM",
    "gelu": "MaquetteForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "lstm": "MaquetteForCausalLM",
    "moe": "MixtralForCausalLM",
}


def model(option: str) -> ModelConfig:
    settings: Any = compose(STAGES["train"], [f"model={option}"])
    assert isinstance(settings.model, ModelConfig)
    return settings.model


@pytest.mark.parametrize("option", EXPORTS)
def test_it_exports_as_it_says(option: str) -> None:
    architecture = resolve(size="100k", vocab_size=500, sequence_length=64, model=model(option)).architecture
    family = next(family for family in hf.FAMILIES if family.expresses(architecture))
    assert family.architecture == EXPORTS[option]


def test_each_option_is_a_model_of_its_own() -> None:
    options = sorted(path.stem for path in (config_folders()[0] / "model").glob("*.yaml"))
    assert options == sorted(EXPORTS)
    models = [model(option) for option in options]
    assert all(one != other for i, one in enumerate(models) for other in models[:i])
    assert model("transformer") == ModelConfig()  # what `maquette train` takes by default
