"""What `--show` prints below the settings: the first three examples of each data file, as they are read.

Lines are YAML comments, so what is printed stays a config file. Nothing is trained or encoded; a file that can't be
read is an error here as it would be later.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from maquette.artifacts.reading import short
from maquette.data.config import RowsConfig

SHOWN = 3
_LONGEST = 500  # characters of an example


def preview(settings: Any) -> Iterator[str]:
    """The lines for all files that the settings of a stage name. Raises `StageError` for one that can't be read."""
    for key, path, examples in _files(settings):
        yield f"# {key}={getattr(path, 'name', path)}, as it is read:"
        yield from (f"#   {short(one, _LONGEST)}" for one in islice(examples(path), SHOWN))


def _files(settings: Any) -> Iterator[tuple[str, Any, Callable[[Any], Iterable[str]]]]:
    """Key, path (or rows) and reader of each file."""
    readers: dict[str, Callable[[Any], Iterable[str]]] = {
        "instructions.path": _instructions, "preferences.path": _preferences, "prompts.path": _prompts,
        "feedback.path": _preferences, "given": _preferences, "add": _preferences, "suite.files": _questions,
        "battles": _battles,
    }  # fmt: skip
    if getattr(getattr(getattr(settings, "objective", None), "entry", None), "reads", None) == "labels":
        readers["preferences.path"] = _labels
    for key, examples in readers.items():
        section = value = settings
        for part in key.split("."):
            section, value = value, getattr(value, part, None)
        if isinstance(value, str) and isinstance(section, RowsConfig):
            yield key, section.open_rows(key.partition(".")[0]), examples
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{name}", path, examples) for name, path in value.items())
        elif isinstance(value, list):
            yield from ((key, path, examples) for path in value)
        elif isinstance(value, str):
            yield key, value, examples


def _as_text(messages: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(
        f"<{one['role']}{', not learned' if one.get('weight') == 0 else ''}> {one['content']}" for one in messages
    )


def _instructions(path: Any) -> Iterator[str]:
    from maquette.data.conversations import ExampleFiles

    return (_as_text(one.messages) for one in ExampleFiles(path, "instructions").examples())


def _preferences(path: Any) -> Iterator[str]:
    from maquette.data.conversations import ExampleFiles

    for one in ExampleFiles(path, "preferences").examples():
        yield f"{_as_text(one.prompt)} | chosen: {_as_text(one.chosen)} | rejected: {_as_text(one.rejected)}"


def _labels(path: Any) -> Iterator[str]:
    from maquette.data.conversations import ExampleFiles, LabelledCompletion

    for one in ExampleFiles(path, "labels").examples():
        parts = [(one.completion, one.desirable)] if isinstance(one, LabelledCompletion) else [
            (one.chosen, True), (one.rejected, False)
        ]  # fmt: skip
        completions = (f" | {'good' if desirable else 'bad'}: {_as_text(part)}" for part, desirable in parts)
        yield _as_text(one.prompt) + "".join(completions)


def _prompts(path: Any) -> Iterator[str]:
    from maquette.data.conversations import ExampleFiles

    return (_as_text(messages) for messages, _ in ExampleFiles(path, "prompts").examples())


def _questions(path: str) -> Iterator[str]:
    from maquette.evaluation.question_files import read_task
    from maquette.evaluation.questions import LETTERS

    for one in read_task("questions", path).questions:
        options = "".join(f" | {LETTERS[place]}: {option}" for place, option in enumerate(one.options))
        yield f"{one.context}{options} | right: {LETTERS[one.answer]}"


def _battles(path: str) -> Iterator[str]:
    from maquette.evaluation.arena import read_battles

    for one in read_battles(path)[0]:
        answers = f" | {one.answers[0]} | {one.answers[1]}" if one.answers else ""
        yield f"{one.winner} {'ties with' if one.tied else 'beats'} {one.loser} | {one.prompt}{answers}"
