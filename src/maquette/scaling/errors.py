"""The one error of laws and fits."""

from maquette.artifacts import ConfigError


class LawError(ConfigError, ValueError):
    """A law that is none, a table of runs that no law can be fitted to, or a question that a law can't answer.

    It names the row, setting or value. It is a `ValueError` too, as notebooks expect of numerical functions.
    """
