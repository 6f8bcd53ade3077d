"""The recipe is arithmetic: importing all of it loads no torch."""

import subprocess
import sys
from pathlib import Path

import maquette.recipe

MODULES = sorted(
    f"maquette.recipe.{path.stem}" for path in Path(maquette.recipe.__file__).parent.glob("*.py") if path.stem[0] != "_"
)


def test_the_recipe_does_not_import_torch() -> None:
    program = (
        f"import sys, {', '.join(MODULES)}\nprint([name for name in sys.modules if name in ('torch', 'lightning')])"
    )
    process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert process.stdout.strip() == "[]"
