"""Errors for people: one line that names the file, key or line, and one that says what to do.

Raise `StageError` where a run can't go on (exit code 1) and `ConfigError` where what was asked for can't be
(exit code 2). The command line prints both without a traceback; `HYDRA_FULL_ERROR=1` shows it.
"""

import re

_SECRETS = re.compile(
    r"(://)(?:[^\s/?#'\"]*@|[^\s/?#'\"@:]*:(?!\d+(?:[/?#\s'\"]|$))[^\s'\"]*@)"
    r"|([?&](?:pass\w*|pwd|secret|api_?key)=)[^&#\s'\"]*",
    re.IGNORECASE,
)

_LONGEST = 700
"""Characters of a message: what it quotes of a damaged file may be millions."""


def without_secrets(text: str) -> str:
    """A text without what stands before the @ of its addresses (`http://user:password@host`), and without passwords
    in their queries: what may be printed and stored."""
    return _SECRETS.sub(lambda result: result[1] or result[2], text) if "://" in text else text


class MaquetteError(Exception):
    """`message` names what is wrong and where, in one line; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = without_secrets(" ".join(message.split("\n"))), without_secrets(hint)
        message = message.encode("utf-8", "backslashreplace").decode()
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - 200]} [...] {message[-180:]}"
        super().__init__(message if not hint else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


class StageError(MaquetteError):
    """A stage could not do its work: a missing, damaged or foreign file, a full disk, diverged training."""


class PeerError(StageError):
    """Another process of the same run has failed, and has said why: this one ends with it."""


class ConfigError(MaquetteError):
    """The settings are wrong: an unknown key, a value out of range, a combination that makes no sense."""

    exit_code = 2
