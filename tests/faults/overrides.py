"""Hostile command lines: overrides of every setting of every stage, composed in this process.

A line may compose, or be refused in one line that is not endless. Anything else is a finding.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.fuzz import LONGEST

from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.settings import walk
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.help import groups
from maquette.cli.command_line.registry import STAGES

_VALUES = (
    "null", "true", "~", "", "-1", "0", "1", ".5", "1e400", "-1e400", "nan", "inf", "9" * 400, "9" * 5_000, "'a b'",
    "a b", "a,b", "[1,2]", "{a:1}", "[" * 500, "{a:" * 200,
    "x" * 5_000, "a\nb", "\u4e66", "\ud800", "\x00", "../x", "'", '"',
    "${outputs}", "${nothing}", "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${oc.decode:'[1]'}", "${oc.decode:'['}",
    "${oc.create:{a:1}}", "${recipe:learning_rate}", "${recipe:x}", "${hydra:runtime.cwd}", "${", "\\${x}", "???",
    "range(3)", "choice(1,2)", "int(x)", "glob(*)", "os.system", "http://u:pa55@h", "1_000", "0x10", "@x", "a=b", "%",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    stage: str
    override: str
    what: str


def lines(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Stages and overrides: a setting or a group and a value, or a key that is no setting."""
    numbers = random.Random(seed)
    for _ in range(count):
        stage = numbers.choice(list(STAGES.values()))
        keys = [setting.key for setting in walk(stage.config)]
        key = numbers.choice([*keys, *keys, *groups(stage), numbers.choice(keys)[:-1], "hydra.run.dir", "hydra"])
        sign = numbers.choice(["", "", "", "", "+", "++", "~"])
        yield stage.name, f"{sign}{key}={numbers.choice(_VALUES)}"


def attack(seed: int, count: int) -> list[Finding]:
    """Composes so many lines; what was neither composed nor refused in a line."""
    findings = []
    for stage, override in lines(seed, count):
        try:
            compose(STAGES[stage], [override])
        except MaquetteError as error:
            if "\n" in error.message or len(str(error)) > 2 * LONGEST or "pa55" in str(error):
                findings.append(Finding(stage, override, f"unclear: {str(error)[:200]!r}"))
        except Exception as error:
            findings.append(Finding(stage, override, f"{type(error).__name__}: {str(error)[:200]}"))
    return findings


if __name__ == "__main__":
    import sys

    for finding in attack(int(sys.argv[1]), int(sys.argv[2])):
        print(finding.stage, repr(finding.override[:100]), finding.what)
