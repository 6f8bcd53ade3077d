"""The command line: a dispatcher, and an application for each stage that wires the packages below."""

from maquette.cli.command_line.dispatcher import main

__all__ = ["main"]
