"""Hostile files: every format that the program reads, damaged in a thousand ways from a seed.

A reader may refuse a file, in one line that names it and does not quote it whole; read the same content; or read other
content where the format has no checksum. Anything else is a finding: an exception of a library's, other content of a
file that we sealed, an endless read, an error that does not say which file.
"""

import contextlib
import io
import json
import random
import re
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import MaquetteError

SECONDS = 20.0
"""A read that takes longer hangs."""

LONGEST = 1_000
"""Characters of an error."""

FINDINGS = ("foreign", "silent", "hang", "unclear")


@dataclass(frozen=True)
class Format:
    """`make(folder)` writes a good file (with whatever lies around it) and returns it; `read(file)` gives what the
    program understands of it, comparable by `==`. `sealed`: a changed byte must be noticed. `named`: how errors may
    name it beside its own name."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    sealed: bool = False
    named: tuple[str, ...] = ()


@dataclass
class Result:
    """What came of one format: how often each outcome, and each finding with the bytes that lead to it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, str, bytes]] = field(default_factory=list)


def attack(format: Format, folder: Path, seed: int, count: int) -> Result:
    """Reads `count` damaged copies of the format's file."""
    result = Result()
    source = folder / "good"
    source.mkdir(parents=True)
    file = format.make(source)
    good = file.read_bytes()
    expected = _snapshot(format.read(file))
    numbers = random.Random(f"{seed} {format.name}")
    for _ in range(count):
        damaged = mutate(good, numbers)
        if damaged == good:
            continue
        place = folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        target = place / file.relative_to(source)
        target.write_bytes(damaged)
        outcome, detail = judge(format, target, expected)
        result.outcomes[outcome] += 1
        if outcome in FINDINGS:
            result.findings.append((outcome, detail, damaged))
    return result


def judge(format: Format, file: Path, expected: str) -> tuple[str, str]:
    """The outcome of reading a damaged file, and what was raised."""
    try:
        with _limited(SECONDS), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            result = _snapshot(format.read(file))
    except MaquetteError as error:
        message = error.message
        if "\n" in message or len(message) > LONGEST:
            return "unclear", message[:300]
        if not any(name in message for name in (file.name, *format.named)):
            return "unclear", f"names no file: {message[:300]}"
        return "refused", message[:300]
    except TimeoutError:
        return "hang", f"over {SECONDS:g} s"
    except Exception as error:
        return "foreign", f"{type(error).__name__}: {str(error)[:300]}"
    if result == expected:
        return "same", ""
    return ("silent" if format.sealed else "other"), result[:300]


def _snapshot(value: Any) -> str:
    return re.sub(r"0x[0-9a-f]{6,}", "0x", repr(value))


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# How files are damaged ------------------------------------------------------------------------------------------------

_HOSTILE_VALUES = (
    "null", "true", "-1", "0", "1e400", "NaN", "1.5", '""', '"\\ud800"', "[]", "{}", '"x"', "9" * 5_000, "-0.0",
    "[" * 3_000, '{"a":' * 3_000, '"' + "y" * 200_000 + '"', '"../../x"', '"\\u0000"', "[null]", '{"a": null}',
    '"${oc.env:HOME}"', "1" * 20,
)  # fmt: skip


def mutate(good: bytes, numbers: random.Random) -> bytes:
    """A damaged copy. Text that is JSON, whole or by lines, also gets other values in its places."""
    ways = [_flip, _cut, _insert, _repeat, _truncate, _zero, _swap_lines, _recode]
    if good[:1] in (b"{", b"["):
        ways += [_other_value] * 4 + [_other_text] * 2
    return numbers.choice(ways)(good, numbers)


def _flip(good: bytes, numbers: random.Random) -> bytes:
    result = bytearray(good)
    for _ in range(numbers.choice((1, 1, 1, 4, 30))):
        if result:
            result[numbers.randrange(len(result))] ^= 1 << numbers.randrange(8)
    return bytes(result)


def _cut(good: bytes, numbers: random.Random) -> bytes:
    start = numbers.randrange(len(good) + 1)
    return good[:start] + good[start + numbers.choice((1, 4, 64, 1024)) :]


def _insert(good: bytes, numbers: random.Random) -> bytes:
    start = numbers.randrange(len(good) + 1)
    extra = numbers.choice((b"\0", b"\n", b'"', b"}", b"\xff", b"\xef\xbb\xbf", numbers.randbytes(16), b"9" * 5_000))
    return good[:start] + extra + good[start:]


def _repeat(good: bytes, numbers: random.Random) -> bytes:
    start = numbers.randrange(len(good) + 1)
    end = min(len(good), start + numbers.choice((1, 16, 256)))
    return good[:end] + good[start:end] * numbers.choice((1, 2, 50)) + good[end:]


def _truncate(good: bytes, numbers: random.Random) -> bytes:
    return good[: numbers.randrange(len(good) + 1)]


def _zero(good: bytes, numbers: random.Random) -> bytes:
    start = numbers.randrange(len(good) + 1)
    length = min(numbers.choice((1, 8, 512, 4096)), len(good) - start)
    return good[:start] + b"\0" * length + good[start + length :]


def _swap_lines(good: bytes, numbers: random.Random) -> bytes:
    lines = good.split(b"\n")
    numbers.shuffle(lines)
    return b"\n".join(lines)


def _recode(good: bytes, numbers: random.Random) -> bytes:
    text = good.decode("utf-8", "replace")
    return numbers.choice((text.encode("utf-16"), text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + good, b""))


def _other_value(good: bytes, numbers: random.Random) -> bytes:
    """One value of the JSON becomes another, perhaps of another type."""
    text = good.decode("utf-8", "replace")
    whole = _parsed(text)
    lines = [text] if whole is not None else text.splitlines()
    place = numbers.randrange(len(lines))
    value = whole if whole is not None else _parsed(lines[place])
    marker = "@@hostile@@"
    if value is None or not _replace(value, marker, numbers):
        return _flip(good, numbers)
    lines[place] = json.dumps(value, ensure_ascii=False).replace(f'"{marker}"', numbers.choice(_HOSTILE_VALUES), 1)
    return "\n".join(lines).encode("utf-8", "surrogatepass") + (b"" if whole is not None else b"\n")


def _other_text(good: bytes, numbers: random.Random) -> bytes:
    """A number or a word of the text becomes another."""
    text = good.decode("utf-8", "replace")
    places = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]{1,40}\"", text))
    if not places:
        return _flip(good, numbers)
    result = numbers.choice(places)
    return (text[: result.start()] + numbers.choice(_HOSTILE_VALUES) + text[result.end() :]).encode("utf-8", "replace")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _replace(value: Any, marker: str, numbers: random.Random) -> bool:
    """Puts the marker somewhere inside; or takes a key away."""
    inside: list[tuple[Any, Any]] = []

    def walk(one: Any) -> None:
        for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            inside.append((one, key))
            walk(one[key])

    walk(value)
    if not inside:
        return False
    container, key = numbers.choice(inside)
    if isinstance(container, dict) and numbers.random() < 0.2:
        del container[key]
        container["unknown"] = marker
    else:
        container[key] = marker
    return True
