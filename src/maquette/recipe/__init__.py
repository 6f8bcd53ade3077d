"""The recipe: from one dial, the size, to every hyperparameter, for pretraining and after it; the sweeps made of it.

Pure arithmetic on plain values: nothing here imports torch.
"""

from maquette.recipe.pretraining import Recipe, resolve
from maquette.recipe.recipe_file import load_recipe, save_recipe
from maquette.recipe.rules import DEFAULT_RULES, HyperparameterRules
from maquette.recipe.shape import choose_shape

__all__ = [
    "DEFAULT_RULES",
    "HyperparameterRules",
    "Recipe",
    "choose_shape",
    "load_recipe",
    "resolve",
    "save_recipe",
]
