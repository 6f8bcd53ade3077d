"""What `maquette` and `maquette STAGE --help` print: stages, groups and keys; and where the groups lie. Free of Hydra
and torch."""

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import maquette
from maquette.artifacts.settings import Setting, walk
from maquette.cli.command_line.registry import STAGES, Stage


def print_stages() -> None:
    """The stages with a line each."""
    print(
        "maquette STAGE [key=value ...] [-m]\n\n"
        "The stages, in the order of the pipeline (each does what it needs of those before it):\n"
    )
    width = max(map(len, STAGES))
    for stage in STAGES.values():
        print(f"  {stage.name:<{width}} {stage.help}")
    print(
        "\n  maquette STAGE --help       its groups and first keys (--help-all: all of them)"
        "\n  maquette STAGE --show ...   the composed settings, without running"
        "\n  maquette train -m size=100k,300k,1m   one run for each value"
        "\n  maquette train -m +sweep=isoflop      a sweep for laws; with --show only its table and its cost"
        "\n  --config-dir FOLDER         adds your own YAML files"
        "\n\nFirst steps: maquette demo; maquette train; maquette sample 'def main('"
    )


def groups(stage: Stage, config_folder: Path | None = None) -> dict[str, list[str]]:
    """The config groups a stage composes, each with its options; `sweep` and `experiment` are added with a `+`."""
    choices: dict[str, list[str]] = {}
    fields = {setting.key.split(".")[0] for setting in walk(stage.config) if "." in setting.key}
    fields |= {field.name for field in dataclasses.fields(stage.config) if field.type is Any}
    for folder in config_folders(config_folder):
        if not folder.is_dir():
            continue
        for group in sorted(path for path in folder.iterdir() if path.is_dir()):
            if group.name in fields or group.name in _ADDED:
                options = {
                    path.stem for path in group.glob("*.yaml") if group.name not in _ADDED or _is_for(path, stage)
                }
                choices[group.name] = sorted(options.union(choices.get(group.name, [])))
    return {name: options for name, options in sorted(choices.items()) if options}


_ADDED = ("sweep", "experiment")
"""Groups that no defaults list has."""


def _is_for(path: Path, stage: Stage) -> bool:
    """Whether a stage has all the settings and groups that a sweep or an experiment sets."""
    text = path.read_text(encoding="utf-8")
    keys = set(re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE))
    overridden = set(re.findall(r"^ *- override /(\w+)", text, re.MULTILINE))
    known = {field.name for field in dataclasses.fields(stage.config)}
    its_own = keys - {"defaults", "hydra"} | overridden - {"hydra"}
    if path.parent.name == "sweep" and not its_own & {"steps"} and "sweep" not in known:
        return False
    return bool(its_own or "hydra" in keys) and its_own <= known


def print_stage(stage: Stage, config_folder: Path | None = None, *, all_keys: bool = False) -> None:
    """A stage's groups, and the keys that people turn first (or all) with defaults, allowed values and help lines."""
    width = shutil.get_terminal_size((110, 24)).columns
    positional = f" [{stage.positional} ...]" if stage.positional else ""
    print(f"maquette {stage.name}{positional} [key=value ...]: {stage.help}\n")
    choices = groups(stage, config_folder)
    if choices:
        print("Groups (choose with group=option):\n")
        for group, options in choices.items():
            shown = f"+{group}" if group in _ADDED else group
            options = [option for option in options if not option.startswith("_")]
            print(
                textwrap.fill(
                    f"{shown:<14} {', '.join(options)}", width, initial_indent="  ", subsequent_indent=" " * 17
                )
            )
        print()
    settings = list(walk(stage.config))
    shown_settings = settings if all_keys else [setting for setting in settings if setting.first]
    print("Keys:\n")
    for line in _keys(shown_settings, width):
        print(line)
    print()
    if hidden := len(settings) - len(shown_settings):
        print(f"maquette {stage.name} --help-all shows {hidden} more.")
    last = "--show prints the settings without running, --cfg job --resolve Hydra's view of them; -m runs every "
    print(textwrap.fill(last + "combination of values. Hydra's own options: --hydra-help.", width))


def _keys(settings: Sequence[Setting], width: int) -> Iterator[str]:
    section = ""
    for setting in sorted(settings, key=lambda setting: "." in setting.key):
        head = setting.key.rpartition(".")[0]
        if head != section:
            section = head
            yield ""
        default = "null" if setting.default is None else str(setting.default)
        default = {"True": "true", "False": "false"}.get(default, default)
        allowed = f" [{', '.join(setting.choices)}]" if setting.choices else ""
        only = f" ({', '.join(setting.variants)})" if setting.variants else ""
        text = f"{setting.key + '=' + default:<36} {setting.help}{allowed}{only}"
        yield textwrap.fill(text, width, initial_indent="  ", subsequent_indent=" " * 39, break_on_hyphens=False)


def config_folders(own: Path | None = None) -> list[Path]:
    """The folders that YAML files are looked for in; the project's own comes first."""
    package = Path(maquette.__file__).parent
    shipped = package / "conf"
    project = shipped if shipped.is_dir() else package.parents[1] / "conf"
    return [project] if own is None else [project, own]
