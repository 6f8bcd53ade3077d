"""The reference, made from the code when the site is built: stages, config groups, keys, and functions for Python.

Stages come from their registry, keys with their defaults and help from the config dataclasses, options with their
comments from the files of conf/, functions from their docstrings. Imports no torch.
"""

import ast
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from maquette.artifacts.settings import Setting, walk
from maquette.cli.command_line.help import groups
from maquette.cli.command_line.registry import STAGES, Stage

ROOT = Path(__file__).resolve().parents[2]

FUNCTIONS = {
    "maquette.model": [
        "TransformerConfig", "Transformer", "LanguageModel", "ScalarModel", "count_parameters", "training_flops",
    ],
    "maquette.model.hf": ["load", "save"],
    "maquette.objectives.losses": [
        "token_log_probs", "bradley_terry_loss", "dpo_loss", "simpo_loss", "orpo_loss", "kto_loss", "kl_estimate",
        "shape_rewards", "generalized_advantage_estimate", "group_advantages", "whiten", "ppo_policy_loss",
        "ppo_value_loss", "AdaptiveKLController",
    ],
    "maquette.scaling": [
        "LossSurface", "fit_surface", "compare_forms", "fit_isoflop", "fit_power_law", "published_surface",
        "fit_predictor", "Predictor", "Forecast", "fit_kinds", "compare_families",
    ],
    "maquette.evaluation": ["length_controlled_win_rate", "bradley_terry_ratings", "contamination_test"],
}  # fmt: skip
"""What Python code may rely on, besides the stages."""


def options() -> dict[str, list[Path]]:
    """The files of each config group."""
    names = {group for stage in STAGES.values() for group in groups(stage)}
    return {name: sorted((ROOT / "conf" / name).glob("*.yaml")) for name in sorted(names)}


def sections() -> dict[str, dict[str, Setting]]:
    """The dotted keys of all stages, by their first part: a config group, or a table of settings without options."""
    keys: dict[str, dict[str, Setting]] = {name: {} for name in options()}
    for stage in STAGES.values():
        for setting in walk(stage.config):
            if "." in setting.key:
                keys.setdefault(setting.key.split(".")[0], {}).setdefault(setting.key, setting)
    return dict(sorted(keys.items()))


def pages() -> dict[str, str]:
    """The Markdown of each page by its path below docs/."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters |= {"cell": _cell, "default_value": _default_value}

    def render(template: str, **values: Any) -> str:
        return templates.get_template(f"{template}.md.jinja").render(**values)

    modules = {module: [_definition(module, name) for name in names] for module, names in FUNCTIONS.items()}
    return {
        "reference/index.md": render("index", stages=STAGES, sections=sections(), options=options()),
        **{f"reference/stages/{name}.md": render("stage", **_stage(stage)) for name, stage in STAGES.items()},
        **{
            f"reference/keys/{name}.md": render("section", **_section(name, list(keys.values())))
            for name, keys in sections().items()
        },
        "reference/python.md": render("python", modules=modules),
    }


def _stage(stage: Stage) -> dict[str, Any]:
    keys, chosen = [setting.key for setting in walk(stage.config)], groups(stage)
    nested = sorted({key.split(".")[0] for key in keys if "." in key} | chosen.keys())
    functions = {"import": "maquette.import_", "corpus": "maquette.cli.command_line.functions.corpus"}
    return {
        "stage": stage,
        "function": functions.get(stage.name, f"maquette.{stage.name}"),
        "settings": [setting for setting in walk(stage.config) if "." not in setting.key],
        "nested": {name: chosen.get(name, []) for name in nested},
        "file": _file(ROOT / "conf" / f"{stage.name}.yaml"),
    }


def _section(name: str, settings: list[Setting]) -> dict[str, Any]:
    def has(stage: Stage) -> bool:
        return name in groups(stage) or any(setting.key.startswith(f"{name}.") for setting in walk(stage.config))

    return {
        "name": name,
        "users": [stage.name for stage in STAGES.values() if has(stage)],
        "settings": settings,
        "files": {path.stem: _file(path) for path in options().get(name, [])},
    }


def _default_value(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "`" + text.replace("|", "\\|").replace("\n", "\\n") + "`" if text else '`""`'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _file(path: Path) -> str:
    return f'```yaml title="{path.relative_to(ROOT)}"\n{path.read_text(encoding="utf-8").rstrip()}\n```'


# Python ---------------------------------------------------------------------------------------------------------------


def _definition(module: str, name: str) -> dict[str, Any]:
    """Where a module's name is defined (there, or where its stub or `__init__` imports it from), and what it says."""
    folder = ROOT / "src" / Path(*module.split("."))
    for path in (folder.with_suffix(".py"), folder / "__init__.pyi", folder / "__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                doc = inspect.cleandoc(ast.get_docstring(node) or "").replace("<", "&lt;")
                return {"name": name, "path": path.relative_to(ROOT), "signature": _signature(node), "doc": doc}
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                return _definition(f"{module}.{node.module}" if node.level else str(node.module), name)
    raise LookupError(f"{module} has no {name}")


def _signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    """A function with its arguments, or a class with those of its public methods and, of a dataclass, its fields."""
    if isinstance(node, ast.FunctionDef):
        return _function(node)
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        lines += [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            lines.append(_function(method))
    return "\n".join(lines).replace("\n", "\n    ")


def _function(node: ast.FunctionDef) -> str:
    """A function without its body; longer than 100 characters, with an argument a line."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if "property" in decorators:
        return f"{node.name}: {ast.unparse(node.returns) if node.returns else Any}  # a property"
    head = "@classmethod\n" * ("classmethod" in decorators) + f"def {node.name}("
    plain = node.args.posonlyargs + node.args.args
    defaults = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
    parts = [_argument(one, default) for one, default in zip(plain, defaults, strict=True)]
    if node.args.vararg or node.args.kwonlyargs:
        parts.append(f"*{ast.unparse(node.args.vararg)}" if node.args.vararg else "*")
    parts += [_argument(one, value) for one, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    parts += [f"**{ast.unparse(node.args.kwarg)}"] if node.args.kwarg else []
    short = f"{head}{', '.join(parts)}){result}"
    return short if len(short) <= 100 else "\n    ".join([head, *(f"{part}," for part in parts)]) + f"\n){result}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default is not None else "")


# MkDocs ---------------------------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages below Reference."""
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] = [
                "reference/index.md",
                {"Stages": [{name: f"reference/stages/{name}.md"} for name in STAGES]},
                {"Groups and keys": [{name: f"reference/keys/{name}.md"} for name in sections()]},
                {"Functions for Python": "reference/python.md"},
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files
