"""`maquette STAGE key=value ...`: a thin dispatcher in front of one Hydra application for each stage.

It takes the stage, turns `--json`, `--show` and bare words into overrides, and hands the rest to `@hydra.main`.
Mistakes are answered in a line or two with exit code 2, failed stages with 1, an interruption with 130;
`HYDRA_FULL_ERROR=1` shows tracebacks. Help is printed without Hydra.
"""

import contextlib
import dataclasses
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from maquette import __version__
from maquette.artifacts.errors import ConfigError, MaquetteError, PeerError, without_secrets
from maquette.artifacts.process_state import process_state_kept
from maquette.artifacts.settings import nearest, walk
from maquette.cli.command_line.registry import MULTIRUN, STAGES, Stage
from maquette.data.process_group import process_group

_OVERRIDE = re.compile(r"(~?[+]{0,2}[A-Za-z_][\w./@:-]*=)|(~[A-Za-z_])", re.ASCII)
_TAKES_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p", "--info",
    "-i", "--experimental-rerun",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `maquette`. Exits with the stage's exit code. Whoever gives `arguments` lives on, in a
    process that is as it was."""
    state = contextlib.nullcontext() if arguments is None else process_state_kept()
    try:
        with state:
            code = _answer(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `maquette runs | head`: whoever reads has enough
        _drop_output()
        code = 128 + signal.SIGPIPE
    raise SystemExit(code)


def _answer(arguments: list[str]) -> int:
    """Does what the line says, or explains why it can't: the exit code.

    Raises `BrokenPipeError` where nobody reads the output any more. The signal of that name stays ignored: at its
    default it would also end the process where a worker's or a server's pipe closes, without a word.
    """
    try:
        _dispatch(arguments)
        return 0
    except KeyboardInterrupt:
        if process_group().is_first:
            _complain("Interrupted. What was finished is kept; run the same command again to resume.")
        return 130
    except MaquetteError as error:
        _let_through()
        if process_group().is_first or not isinstance(error, PeerError):
            _complain(str(error))
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        _let_through()
        from maquette.artifacts.files import explain_os_error

        _complain(str(explain_os_error(error, error.filename or "a file", "read or write")))
        return 1
    except Exception as error:
        _let_through()
        from maquette.artifacts.targets import place_of

        place = place_of(error)
        whose = f"Raised{place}" if place else "This is a fault in maquette, or in what a library was given"
        _complain(f"{type(error).__name__}: {error}\n  {whose}; HYDRA_FULL_ERROR=1 shows the calls.")
        return 1


def _nobody_reads() -> bool:
    """Whether standard output or error is a pipe that is closed at its other end."""
    return any(flags & select.POLLERR for _, flags in _poll_output())


def _drop_output() -> None:
    """Nothing more is printed, not at the interpreter's end either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor, flags in _poll_output():
        if flags & select.POLLERR:
            os.dup2(nowhere, descriptor)


def _poll_output() -> list[tuple[int, int]]:
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a notebook's, or a test's, is no file
            poll.register(stream.fileno(), 0)
    return poll.poll(0)


def _complain(message: str) -> None:
    print(f"maquette: {without_secrets(message)}", file=sys.stderr)


def _let_through() -> None:
    """Lets the error through, whole, where Hydra would."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise


@dataclasses.dataclass
class CommandLine:
    """What stands behind `maquette STAGE`: overrides, Hydra's own options, and what is ours."""

    overrides: list[str] = dataclasses.field(default_factory=list)
    options: list[str] = dataclasses.field(default_factory=list)
    positional: list[str] = dataclasses.field(default_factory=list)
    help: bool = False
    help_all: bool = False
    show: bool = False
    config_folder: Path | None = None

    @property
    def multirun(self) -> bool:
        return bool(MULTIRUN & {*self.options, *self.overrides})


def parse(stage: Stage, arguments: Sequence[str]) -> CommandLine:
    """Sorts a stage's arguments: options may stand anywhere among overrides, which Hydra's parser wants apart.

    Raises `ConfigError` for a word that is neither."""
    if stage.another_programs and not {*arguments[:1]} & {"-h", "--help", "--help-all", "--show"}:
        return CommandLine(positional=list(arguments))
    line = CommandLine()
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-h", "--help", "--help-all"):
            line.help, line.help_all = True, line.help_all or argument == "--help-all"
        elif argument == "--show":
            line.show = True
        elif argument == "--json" and any(field.name == "json" for field in dataclasses.fields(stage.config)):
            line.overrides.append("json=true")
        elif argument == "--":
            line.positional.extend(rest)
        elif argument.startswith("-"):
            name, _, value = argument.partition("=")
            if (key := name.lstrip("-").replace("-", "_")) in {setting.key for setting in walk(stage.config)}:
                value = value or next(rest, "...")
                raise ConfigError(f"'{argument}' is not an option.", f"Settings have no dashes: {key}={value}")
            line.options.append(argument)
            if name in _TAKES_VALUE and not value and (value := next(rest, "")):
                line.options.append(value)
            if name in ("--config-dir", "-cd"):
                line.config_folder = Path(value)
        elif _OVERRIDE.match(argument) and not (stage.positional and " " in argument.partition("=")[0]):
            line.overrides.append(argument)
        elif stage.positional:
            line.positional.append(argument)
        else:
            line.overrides.append(argument)  # install=bash, or a mistake that Hydra names
            if not {"-sc", "--shell-completion"} & set(line.options):
                raise ConfigError(
                    f"'{argument}' is not a setting.", f"Write key=value; maquette {stage.name} --help lists the keys."
                )
    return line


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from maquette.cli.command_line.help import print_stages

        print_stages()
    elif arguments[0] == "--version":
        print(f"maquette {__version__}")
    elif arguments[0] in ("-sc", "--shell-completion"):
        _complete(arguments)
    elif (stage := STAGES.get(arguments[0])) is None:
        close = nearest(arguments[0], list(STAGES))
        raise ConfigError(
            f"there is no stage '{arguments[0]}'.",
            f"Did you mean '{close}'?" if close else f"Stages: {', '.join(STAGES)}.",
        )
    else:
        line = parse(stage, arguments[1:])
        if line.help:
            from maquette.cli.command_line.help import print_stage

            print_stage(stage, line.config_folder, all_keys=line.help_all)
        else:
            _run(stage, line)


def _run(stage: Stage, line: CommandLine) -> None:
    """Hands the line to the stage's Hydra application, and explains what Hydra finds wrong with it."""
    from maquette.cli.command_line.application import Application
    from maquette.cli.command_line.composition import explain
    from maquette.cli.command_line.config_errors import COMPOSING
    from maquette.cli.command_line.overrides import hydra_overrides, literal

    # The demo has a sweep of its own, and an alignment's sweep is one study of several runs.
    alone = stage.name == "train" and not line.multirun and not line.options
    if alone and any(text.startswith(("+sweep=", "sweep=", "sweep.")) for text in line.overrides):
        raise ConfigError("A sweep is many runs.", f"Type it with -m: maquette train -m {' '.join(line.overrides)}")
    positional = [f"{stage.positional}={literal(list(line.positional))}"] if line.positional else []
    overrides = [f"+{text}" if line.multirun and text.startswith("sweep=") else text for text in line.overrides]
    overrides = [*hydra_overrides(stage, overrides, line.config_folder), *positional]
    application = Application(stage, dry=line.show)
    try:
        application.main(line.options, overrides)
    except COMPOSING as error:
        _let_through()
        raise explain(stage, error, overrides, line.config_folder) from error
    if application.sweep is not None and application.sweep.exit_code:
        raise SystemExit(application.sweep.exit_code)


def _complete(arguments: list[str]) -> None:
    """Shell completion as Hydra documents it, `eval "$(maquette -sc install=bash)"`: the stage comes first, then what
    Hydra knows of it."""
    line = os.environ.get("COMP_LINE", "").split(" ")
    if not arguments[-1].startswith("query="):
        _run(STAGES["train"], CommandLine(options=arguments[:1], overrides=arguments[1:]))
    elif len(line) > 2 and line[1] in STAGES:
        os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
        _run(STAGES[line[1]], CommandLine(options=arguments[:1], overrides=arguments[1:]))
    else:
        print(" ".join(name for name in STAGES if name.startswith(line[-1] if len(line) > 1 else "")))
