"""Tasks that a model is shown and that it writes: an instruction, perhaps an input, and the output.

A request shows three seed tasks and asks for more in the same form, many at once, as Alpaca does (Self-Instruct asks
for one at a time, and for the input and output of each again). The seeds stand in a turn of the assistant, as if it had
written them: small models keep to a form that they have used better than to one that is described. Which seeds a
request shows is a pure function of (seed, number of the request), so that a run resumes.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from maquette.artifacts import StageError
from maquette.artifacts.files import file_digest
from maquette.corpus.sources.row_files import read_rows, row_files
from maquette.data.row_messages import text_of
from maquette.feedback.chat_models import Reply
from maquette.model.generation import row_seed
from maquette.text.chat import Message

EXAMPLES = 3
"""Seed tasks that a request shows."""


@dataclass(frozen=True)
class SeedTask:
    """`category` says what kind of task it is, for people."""

    instruction: str
    input: str = ""
    output: str = ""
    category: str = ""


@dataclass(frozen=True)
class WrittenTask:
    """A task as a model wrote it, in its own words: a part that it left out is empty. `request` and `number`: which
    one of which request it is. `cut`: the reply ended within it."""

    instruction: str
    input: str
    output: str
    request: int
    number: int
    cut: bool = False


def seed_file(path: str | None) -> Path:
    """The file of seed tasks: the one given, or the 175 of this package."""
    return (
        Path(str(resources.files("maquette.feedback.instruct").joinpath("seed_tasks.jsonl")))
        if path is None
        else Path(path)
    )


def read_seeds(path: Path) -> list[SeedTask]:
    """The tasks of a file. Raises `StageError` for a row without an instruction or an output, and for too few."""
    seeds = []
    for place, row in read_rows(row_files(path, "seed tasks"), "seed tasks"):
        task = SeedTask(*(text_of(row, key, place).strip() for key in ("instruction", "input", "output", "category")))
        if not task.instruction or not task.output:
            raise StageError(f"{place} is not a seed task.", "It has instruction, output, and perhaps input, category.")
        seeds.append(task)
    if len(seeds) < EXAMPLES:
        raise StageError(f"{path} has {len(seeds)} seed tasks.", f"A request shows {EXAMPLES} of them.")
    return seeds


# What is asked --------------------------------------------------------------------------------------------------------

REQUEST = """\
Invent tasks for an assistant that reads and writes text. A task has an instruction, an input where the instruction is \
about a given text, and an output, which is the right response.

- Let the tasks differ from each other: other verbs, other subjects, questions and requests.
- Text alone must be enough: no pictures, sounds, files, web pages or programs.
- An instruction has one or two sentences. Where no input is needed, write (none).
- The output is correct and complete, in at most 100 words.

Begin with {shown} tasks."""

MORE = "Now {count} more tasks in the same form, about other subjects: tasks {first} to {last}."

_NO_INPUT = re.compile(r"\W*(none|no ?input|n/?a|nothing|not (needed|applicable))?\W*", re.IGNORECASE)


def request_messages(seeds: Sequence[SeedTask], number: int, *, count: int, seed: int) -> list[Message]:
    """The conversation of request `number`, which asks for `count` tasks."""
    shown = random.Random(row_seed(seed, number)).sample(list(seeds), EXAMPLES)
    return [
        {"role": "user", "content": REQUEST.format(shown=EXAMPLES)},
        {"role": "assistant", "content": "\n\n".join(_form(place, task) for place, task in enumerate(shown, 1))},
        {"role": "user", "content": MORE.format(count=count, first=EXAMPLES + 1, last=EXAMPLES + count)},
    ]


def _form(number: int, task: SeedTask) -> str:
    return f"Task {number}\nInstruction: {task.instruction}\nInput: {task.input or '(none)'}\nOutput: {task.output}"


def request_identity(path: Path) -> dict[str, str | int]:
    """What decides the requests, beside settings."""
    return {"seeds": file_digest(path), "request": REQUEST + MORE, "examples": EXAMPLES}


# What is replied ------------------------------------------------------------------------------------------------------

_LABEL = re.compile(
    r"^[ \t>#*_-]*(?:(?:task[ \t]*)?\d+[.):]?[ \t*_]*)?(?P<name>instruction|input|output)s?[ \t*_]*:[*_]*"
    r"|^[ \t>#*_-]*task[ \t]*\d+[ \t*_]*:[ \t*_]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING = re.compile(
    r"^[ \t>#*_-]*(?:task[ \t]*)?\d+[.):]?[ \t*_]*$|^[ \t]*[-=#*_]{3,}[ \t]*$", re.IGNORECASE | re.MULTILINE
)


def read_tasks(reply: Reply, request: int) -> list[WrittenTask]:
    """The tasks in a reply, in order. Each begins at a label `Instruction:`, or at `Task 4:` with words behind it;
    markup around labels does not matter. A label that a task has had already stays in its text. A reply without any
    label is one task that has only an output."""
    parts: list[dict[str, str]] = []
    name, start = "output", 0
    for label in [*_LABEL.finditer(reply.text), None]:
        new = "instruction" if label is None else (label["name"] or "instruction").lower()
        if label is not None and parts and new != "instruction" and new in parts[-1]:
            continue
        text = _HEADING.sub("", reply.text[start : len(reply.text) if label is None else label.start()]).strip()
        if parts:
            parts[-1][name] = text
        elif label is None:
            parts.append({name: text})
        if label is not None:
            if new == "instruction" or not parts:
                parts.append({})
            parts[-1][new] = ""
            name, start = new, label.end()
    for part in parts:
        if _NO_INPUT.fullmatch(part.get("input", "")):
            part["input"] = ""
    return [
        WrittenTask(
            part.get("instruction", ""), part.get("input", ""), part.get("output", ""), request, number,
            cut=reply.cut and number == len(parts),
        )
        for number, part in enumerate(parts, 1)
    ]  # fmt: skip


def repeats_a_part(text: str) -> bool:
    """Whether a part of a task holds the label of another, or its own again."""
    return _LABEL.search(text) is not None


def instruction_row(task: WrittenTask, author: str) -> dict[str, object]:
    """The line of an instruction file, in Alpaca's form."""
    row = asdict(task)
    return {key: row[key] for key in ("instruction", "input", "output")} | {
        "source": author,
        "meta": {"request": task.request, "number": task.number},
    }
