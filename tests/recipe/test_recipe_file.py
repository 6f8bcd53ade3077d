"""Recipe files: written and read again, wrong ones refused by file and key, chosen on the command line."""

import dataclasses
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.help import config_folders
from maquette.cli.command_line.registry import STAGES
from maquette.recipe import DEFAULT_RULES, HyperparameterRules, load_recipe, resolve, save_recipe
from maquette.recipe.recipe_file import find_recipe, recipe_path


def composed(*overrides: str) -> TrainStage:
    settings = compose(STAGES["train"], overrides)
    assert isinstance(settings, TrainStage)
    return settings


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rules = HyperparameterRules(
        learning_rate=0.123,
        lr_width_exponent=-0.9,
        source="25 runs",
        provenance={"runs": ["a", "b"], "interval": [-1.0, -0.8]},
    )
    assert load_recipe(save_recipe(rules, recipe_path("mine", tmp_path))) == rules
    assert find_recipe("mine", tmp_path) == tmp_path / "recipes" / "mine.yaml"
    assert find_recipe("other", tmp_path) is None


def test_shipped_recipes_are_recipe_files() -> None:
    folder = config_folders()[0] / "recipe"
    standard, mup = load_recipe(folder / "standard.yaml"), load_recipe(folder / "mup.yaml")
    assert dataclasses.replace(standard, source=DEFAULT_RULES.source) == DEFAULT_RULES
    assert mup.kind == "mup" and mup.learning_rate == pytest.approx(
        standard.peak_learning_rate(mup.base_hidden_size, mup.base_batch_size_tokens), rel=1e-2
    )
    narrow, wide = (
        resolve(size=size, vocab_size=1024, sequence_length=128, batch_size_tokens=512, rules=mup)
        for size in ("50k", "2m")
    )
    assert (
        narrow.learning_rate == wide.learning_rate and narrow.architecture.hidden_size < wide.architecture.hidden_size
    )


def test_keys_left_out_keep_the_standard_value(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("learning_rate: 0.1\nbase_tokens: 8e6\n")
    assert load_recipe(path) == HyperparameterRules(learning_rate=0.1, base_tokens=8e6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 0.1", r"unknown key 'learning_rat'(.|\n)*Did you mean 'learning_rate'"),
        ("learning_rate: fast", "learning_rate=fast is not a number"),
        ("base_batch_size_tokens: 1.5", "base_batch_size_tokens=1.5 is not a whole number"),
        ("learning_rate: -1", r"recipe.learning_rate=-1.0 is out of range"),
        ("kind: mop", r"recipe.kind=mop is not known"),
        ("kind: mup", "would follow the width twice"),
        ("- 1", "holds no keys"),
        ("learning_rate: [", "is damaged: ParserError"),
        ("source: 3", "source=3 is not text"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert str(path) in caught.value.message


def test_the_command_line_takes_options_files_and_names(tmp_path: Path) -> None:
    save_recipe(HyperparameterRules(learning_rate=0.05, provenance={"runs": ["a"]}), recipe_path("mine", tmp_path))
    assert composed().recipe.learning_rate == 0.38
    assert composed("recipe=mup").recipe.kind == "mup"
    for chosen in (f"recipe={tmp_path}/recipes/mine.yaml", "recipe=mine"):
        recipe = composed(chosen, f"outputs={tmp_path}").recipe
        assert (recipe.learning_rate, recipe.provenance) == (0.05, {"runs": ["a"]})
    recipe = composed("recipe=mine", "recipe.warmup=0.2", f"outputs={tmp_path}").recipe
    assert (recipe.learning_rate, recipe.warmup) == (0.05, 0.2)


def test_unknown_recipes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe=standerd is not known(.|\n)*Did you mean 'standard'"):
        composed("recipe=standerd", f"outputs={tmp_path}")


def test_mup_needs_an_untied_head() -> None:
    from maquette.model.config import ModelConfig

    with pytest.raises(ConfigError, match=r"model.tie_word_embeddings=true"):
        resolve(
            size="100k",
            vocab_size=512,
            sequence_length=64,
            model=ModelConfig(tie_word_embeddings=True),
            rules=HyperparameterRules("mup", lr_width_exponent=0),
        )
