"""`maquette STAGE key=value ...`: finds the stage, composes and checks its settings with Hydra, and runs it.

Nothing heavy is imported before the settings are known to be right. Mistakes are answered in a line or two with
exit code 2, failed stages with exit code 1, an interruption with 130; `MAQUETTE_DEBUG=1` shows tracebacks.
"""

import dataclasses
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from maquette import __version__
from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.settings import nearest
from maquette.stages import STAGES, Stage

_OVERRIDE = re.compile(r"(~?[+]{0,2}[A-Za-z_][\w./@:-]*=)|(~[A-Za-z_])", re.ASCII)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `maquette`. Exits with the stage's exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `maquette runs | head` ends quietly
    try:
        code = _dispatch(arguments)
    except KeyboardInterrupt:
        _complain("Interrupted. What was finished is kept; type the same line again to go on.")
        code = 130
    except MaquetteError as error:
        _debug()
        _complain(str(error))
        code = error.exit_code
    except OSError as error:
        _debug()
        from maquette.artifacts.files import explain_os_error

        _complain(str(explain_os_error(error, error.filename or "a file")))
        code = 1
    except Exception as error:
        _debug()
        _complain(f"{type(error).__name__}: {error}\n  This is a fault in maquette; MAQUETTE_DEBUG=1 shows where.")
        code = 1
    sys.stdout.flush()
    raise SystemExit(code)


def _complain(message: str) -> None:
    print(f"maquette: {message}", file=sys.stderr)


def _debug() -> None:
    if os.environ.get("MAQUETTE_DEBUG") == "1":
        raise


@dataclasses.dataclass
class CommandLine:
    """What stands behind `maquette STAGE`."""

    overrides: list[str] = dataclasses.field(default_factory=list)
    words: list[str] = dataclasses.field(default_factory=list)
    multirun: bool = False
    help: bool = False
    show: bool = False
    config_folder: Path | None = None


def parse(stage: Stage, arguments: Sequence[str]) -> CommandLine:
    """Sorts a stage's arguments into overrides (`key=value`), plain words and flags. Raises `ConfigError`."""
    line = CommandLine()
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-h", "--help"):
            line.help = True
        elif argument in ("-m", "--multirun"):
            line.multirun = True
        elif argument == "--show":
            line.show = True
        elif argument == "--json" and any(field.name == "json" for field in dataclasses.fields(stage.config)):
            line.overrides.append("json=true")
        elif argument == "--config-dir" or argument.startswith("--config-dir="):
            folder = argument.partition("=")[2] or next(rest, "")
            line.config_folder = Path(folder).resolve()
            if not folder or not line.config_folder.is_dir():
                raise ConfigError(
                    f"--config-dir {folder} is not a folder.", "Give the folder that holds your YAML files."
                )
        elif argument == "--":
            line.words.extend(rest)
        elif argument.startswith("-"):
            raise ConfigError(
                f"unknown option {argument}.", "Options: --help, -m, --show, --json, --config-dir FOLDER."
            )
        elif _OVERRIDE.match(argument) and not (stage.words and " " in argument.partition("=")[0]):
            line.overrides.append(argument)
        elif stage.words:
            line.words.append(argument)
        else:
            raise ConfigError(
                f"'{argument}' is not a setting.", f"Write key=value; maquette {stage.name} --help lists the keys."
            )
    return line


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from maquette.stages.help import print_stages

        print_stages()
        return 0
    if arguments[0] == "--version":
        print(f"maquette {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in STAGES:
        close = nearest(name, list(STAGES))
        raise ConfigError(
            f"there is no stage '{name}'.",
            f"Did you mean '{close}'?" if close else f"Stages: {', '.join(STAGES)}.",
        )
    line = parse(STAGES[name], rest)
    if line.help:
        from maquette.stages.help import print_stage

        print_stage(STAGES[name], line.config_folder)
        return 0
    if line.multirun:
        from maquette.stages.multirun import multirun

        return multirun(STAGES[name], line.overrides, line.config_folder, show=line.show)
    # The demo has a sweep of its own, and an alignment's sweep is one study of several runs.
    if name == "train" and any(word.startswith(("+sweep=", "sweep=", "sweep.")) for word in line.overrides):
        raise ConfigError("A sweep is many runs.", f"Type it with -m: maquette {name} -m {' '.join(line.overrides)}")
    from maquette.stages.composition import compose

    settings = compose(STAGES[name], line.overrides, line.config_folder)
    if line.show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.structured(settings)), end="")
        return 0
    if line.words:
        setattr(settings, str(STAGES[name].words), line.words)
    STAGES[name].run(settings)
    return 0
