"""Which process a run belongs to, so that one that was killed is not shown as running for ever."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

_TAG = "process"


def process_tag() -> dict[str, str]:
    """A tag that names this process: host, number, and the moment it began (numbers are used again)."""
    return {_TAG: f"{platform.node()} {os.getpid()} {_began(os.getpid())}"}


def is_stale(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run with these tags was one of this machine, and is gone."""
    host, _, rest = tags.get(_TAG, "").partition(" ")
    number, _, began = rest.partition(" ")
    if host != platform.node() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return began != _began(int(number))


def _began(number: int) -> str:
    """The process's start in clock ticks since the machine's (field 22 of its stat file); `-` where unknown."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
