"""What `maquette` and `maquette STAGE --help` print: stages, groups and keys. Free of Hydra and torch."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from maquette.artifacts.settings import walk
from maquette.stages import STAGES, Stage
from maquette.stages.folders import config_folders


def print_stages() -> None:
    """The stages with a line each."""
    print(
        "maquette STAGE [key=value ...] [-m]\n\n"
        "The stages, in the order of the road (each does what it needs of those before it):\n"
    )
    for stage in STAGES.values():
        print(f"  {stage.name:<10} {stage.help}")
    print(
        "\n  maquette STAGE --help       its groups and keys"
        "\n  maquette STAGE --show ...   the composed settings, without running"
        "\n  maquette train -m size=100k,300k,1m   one run for each value"
        "\n  maquette train -m +sweep=isoflop      a sweep for laws; with --show only its table and its cost"
        "\n  --config-dir FOLDER         adds your own YAML files"
        "\n\nFirst steps: maquette demo; maquette train; maquette sample 'def main('"
    )


def groups(stage: Stage, config_folder: Path | None = None) -> dict[str, list[str]]:
    """The config groups a stage composes, each with its options; `sweep` and `experiment` are added with a `+`."""
    found: dict[str, list[str]] = {}
    fields = {setting.key.split(".")[0] for setting in walk(stage.config) if "." in setting.key}
    for folder in config_folders(config_folder):
        for group in sorted(path for path in folder.iterdir() if path.is_dir()):
            if group.name in fields or group.name in ("sweep", "experiment"):
                options = {path.stem for path in group.glob("*.yaml") if group.name in fields or _is_for(path, stage)}
                found[group.name] = sorted(options.union(found.get(group.name, [])))
    return {name: options for name, options in sorted(found.items()) if options}


def _is_for(path: Path, stage: Stage) -> bool:
    """Whether a sweep or an experiment is one of the stage: its file says `# stage: NAME`, or nothing for train."""
    found = re.search(r"^# stage: (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return stage.name == (found[1] if found else "train")


def print_stage(stage: Stage, config_folder: Path | None = None) -> None:
    """A stage's groups and keys with their defaults, allowed values and help lines."""
    width = shutil.get_terminal_size((110, 24)).columns
    words = f" [{stage.words} ...]" if stage.words else ""
    print(f"maquette {stage.name}{words} [key=value ...]: {stage.help}\n")
    found = groups(stage, config_folder)
    if found:
        print("Groups (choose with group=option):\n")
        for group, options in found.items():
            shown = f"+{group}" if group in ("sweep", "experiment") else group
            print(
                textwrap.fill(
                    f"{shown:<14} {', '.join(options)}", width, initial_indent="  ", subsequent_indent=" " * 17
                )
            )
        print()
    print("Keys:\n")
    for line in _keys(stage, width):
        print(line)


def _keys(stage: Stage, width: int) -> Iterator[str]:
    section = ""
    for setting in sorted(walk(stage.config), key=lambda setting: "." in setting.key):
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
