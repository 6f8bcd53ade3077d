"""Completions that others have published, in AlpacaEval's format: rows of instruction, output, generator.

Li et al. 2023, "AlpacaEval: An Automatic Evaluator of Instruction-following Models": one file a model there, any number
of them here, each named by its `generator`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.corpus.sources.row_files import RowFiles
from maquette.data.conversations import Prompt

_FIELDS = ("instruction", "output", "generator")


def read_model_outputs(paths: Sequence[str]) -> tuple[list[Prompt], dict[str, list[str]]]:
    """The instructions that every generator has answered, as prompts without ids, and the outputs of each, in their
    order. What only some have answered is left out, and said.

    Raises `StageError` for a row without one of the three, or with a second output of one generator."""
    outputs: dict[str, dict[str, str]] = {}
    for path in paths:
        for place, row in RowFiles(path, "model_outputs").rows():
            instruction, output, generator = _fields(place, row)
            if instruction in outputs.setdefault(generator, {}):
                raise StageError(f"{place}: {generator} has a second output of one instruction.", "Remove one.")
            outputs[generator][instruction] = output
    if not outputs:
        raise StageError(f"{', '.join(paths)} has no rows.", f"Each row has {', '.join(_FIELDS)}.")
    first = next(iter(outputs.values()))
    shared = [one for one in first if all(one in answers for answers in outputs.values())]
    if left_out := len({one for answers in outputs.values() for one in answers}) - len(shared):
        say(f"model_outputs: {left_out:,} instructions left out: not every generator has an output of them")
    if not shared:
        raise StageError("The generators of model_outputs have no instruction in common.", "Compare fewer of them.")
    prompts = [Prompt(({"role": "user", "content": one},), ()) for one in shared]
    return prompts, {name: [answers[one] for one in shared] for name, answers in outputs.items()}


def write_model_outputs(
    path: Path, prompts: Sequence[Prompt], completions: Mapping[str, Sequence[str]], called: Mapping[str, str]
) -> None:
    """The completions of every model in the same format; `called`: the models' names as generators. Of a conversation
    the instruction is all that was said before, as AlpacaEval has one text."""
    rows = [
        {"dataset": "maquette", "instruction": _instruction(one), "output": answer, "generator": called.get(name, name)}
        for name, answers in completions.items()
        for one, answer in zip(prompts, answers, strict=True)
    ]
    write_json(path, rows)


def _instruction(prompt: Prompt) -> str:
    if len(prompt.messages) == 1:
        return str(prompt.messages[0]["content"])
    return "\n\n".join(f"{one['role']}: {one['content']}" for one in prompt.messages)


def baseline_of(names: Sequence[str], chosen: str | None) -> str:
    """Who is compared with, by default the first. Raises `ConfigError` for fewer than two models, two of one name, or
    a baseline that is none of them."""
    if len(names) < 2:
        raise ConfigError("There is nothing to compare.", "Name two models or more: models=[run-a,run-b].")
    if len(set(names)) < len(names):
        raise ConfigError(f"Of {', '.join(names)} two have one name.", "Name each once.")
    if chosen is not None and chosen not in names:
        raise ConfigError(f"baseline={chosen} is none of the models.", f"Models: {', '.join(names)}.")
    return chosen or names[0]


def _fields(place: str, row: object) -> tuple[str, str, str]:
    values = [row.get(name) if isinstance(row, Mapping) else None for name in _FIELDS]
    for name, value in zip(_FIELDS, values, strict=True):
        if not isinstance(value, str):
            raise StageError(
                f"{place}: `{name}` must be a string.", "AlpacaEval's rows have instruction, output, generator."
            )
    instruction, output, generator = (str(value) for value in values)
    return instruction, output, generator
