"""Examples on disk: conversations as ids through the one chat template, each with the mask of the tokens that count.
What is too long is left out and counted.

`tokens.npy` and `mask.npy` hold all examples end to end, `starts.npy (n + 1,)` where each begins, and one file each
further column of numbers `(n,)`. Everything is memory-mapped.
"""

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.artifacts.files import listed
from maquette.artifacts.reading import load_array, load_table, reading
from maquette.data.conversations import Instruction, LabelledCompletion, Preference
from maquette.text.chat import Conversation, Message, render

if TYPE_CHECKING:
    from maquette.text import Tokenizer

SPLITS = ("train", "validation")


class Examples:
    """`len(examples)`, and `examples[i] -> (ids, mask)`: int32 and bool, `(length,)`.

    `columns`: name -> numbers of each example. `names`: what the numbers of a column stand for, where they do.
    """

    def __init__(
        self,
        tokens: NDArray[np.int32],
        mask: NDArray[np.bool_],
        starts: NDArray[np.int64],
        columns: Mapping[str, NDArray[Any]] | None = None,
        names: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.tokens, self.mask, self.starts = tokens, mask, starts
        self.columns, self.names = dict(columns or {}), dict(names or {})

    @classmethod
    def load(cls, folder: Path) -> "Examples":
        """Raises `StageError` where a file is missing or damaged."""
        hint = "Rebuild it with force=true."
        names = load_table(folder / "names.json", hint=hint)
        with reading(folder, hint=hint):
            arrays = {path.stem: load_array(path, mapped=True, hint=hint) for path in listed(folder, "*.npy")}
            return cls(arrays.pop("tokens"), arrays.pop("mask"), arrays.pop("starts"), arrays, names)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.tokens[part], self.mask[part]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each."""
        return np.diff(self.starts)

    @functools.cached_property
    def answer_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each that count."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(self.mask.astype(np.int64), self.starts[:-1])

    def describe(self) -> dict[str, int]:
        return {
            "examples": len(self),
            "tokens": int(self.starts[-1]),
            "answer_tokens": int(self.answer_lengths.sum()),
            "longest": int(self.lengths.max(initial=0)),
        }


class ExampleWriter:
    """Gathers examples and writes them as a folder that `Examples.load` reads."""

    def __init__(self) -> None:
        self._tokens: list[NDArray[np.int32]] = []
        self._mask: list[NDArray[np.bool_]] = []
        self._columns: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, ids: Sequence[int], mask: Sequence[bool], **columns: float) -> None:
        self._tokens.append(np.asarray(ids, dtype=np.int32))
        self._mask.append(np.asarray(mask, dtype=np.bool_))
        for name, value in columns.items():
            self._columns.setdefault(name, []).append(value)

    def total(self, column: str) -> int:
        return int(sum(self._columns.get(column, [])))

    def write(self, folder: Path, names: Mapping[str, list[str]] | None = None) -> Examples:
        """Writes the files; returns what they hold."""
        examples = Examples(
            np.concatenate([np.zeros(0, dtype=np.int32), *self._tokens]),
            np.concatenate([np.zeros(0, dtype=np.bool_), *self._mask]),
            np.cumsum([0, *map(len, self._tokens)], dtype=np.int64),
            {name: np.asarray(values) for name, values in self._columns.items()},
            names,
        )
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"tokens": examples.tokens, "mask": examples.mask, "starts": examples.starts, **examples.columns}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "names.json").write_text(json.dumps(examples.names), encoding="utf-8")
        return examples


def split_of(prompt: Sequence[Message], validation: float) -> str:
    """The split of everything that begins with `prompt`: by its digest, so that no prompt stands on both sides and
    more rows move none. `validation`: share that is held out."""
    text = json.dumps([[message["role"], message["content"]] for message in prompt])
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return "validation" if number < validation * 2**64 else "train"


# From instructions and preferences ------------------------------------------------------------------------------------


def encode_instructions(
    instructions: Iterable[Instruction], tokenizer: "Tokenizer", folder: Path, **limits: Any
) -> dict[str, Any]:
    """Writes `folder/train` and `folder/validation`; returns the counts for the manifest.

    `limits`: `longest`, the tokens that an example may have; `validation`, the share held out; `limit`, training
    examples at most, the first ones (held-out ones are the same for any limit). Raises `StageError` where nothing is
    left to train on.
    """

    def encode(one: Instruction) -> list[_Encoded] | str:
        turns = [_learned(message) for message in one.messages]
        if not any(message.get("weight", 1) for message in turns if message["role"] == "assistant"):
            return "empty"
        conversation = render(tokenizer, turns)
        return [(conversation.ids, conversation.assistant_mask, {})]

    rows = ((one.split, _request(one.messages), one) for one in instructions)
    counts, writers = _encode(rows, encode, {"read": 0, "too_long": 0}, **limits)
    return _written(writers, folder, counts, limits["longest"], "instructions")


def encode_preferences(
    preferences: Iterable[Preference], tokenizer: "Tokenizer", folder: Path, **limits: Any
) -> dict[str, Any]:
    """Writes `folder/train` and `folder/validation`, where examples 2 k and 2 k + 1 are the chosen and the
    rejected completion of pair k; returns the counts. The mask is true for what the assistant wrote after the prompt.

    Columns: `prompt_length`, `annotator`, `margin` and `probability` (NaN where it has none). Equal pairs are left
    out and counted, as those are that do not fit `longest`. `limits`, `limit` counting pairs, and errors: see
    `encode_instructions`.
    """
    annotators: dict[str, int] = {}

    def encode(one: Preference) -> list[_Encoded] | str:
        if one.is_tie:
            return "identical"
        if not one.chosen[-1]["content"].strip():
            return "empty"
        pair = [_continued(tokenizer, one.prompt, completion) for completion in (one.chosen, one.rejected)]
        columns = {
            "annotator": annotators.setdefault(one.annotator, len(annotators)),
            "margin": math.nan if one.margin is None else one.margin,
            "probability": math.nan if one.probability is None else one.probability,
        }
        return [(whole.ids, whole.assistant_mask, {"prompt_length": length, **columns}) for whole, length in pair]

    rows = ((one.split, one.prompt, one) for one in preferences)
    counts, writers = _encode(rows, encode, {"read": 0, "too_long": 0, "identical": 0}, **limits)
    return _written(writers, folder, counts, limits["longest"], "preferences", {"annotator": list(annotators)})


def encode_labels(
    rows: Iterable[LabelledCompletion | Preference], tokenizer: "Tokenizer", folder: Path, **limits: Any
) -> dict[str, Any]:
    """Writes `folder/train` and `folder/validation`: completions, good or bad by themselves; a preference is split into
    its two. Returns the counts.

    Columns: `prompt_length`, and `desirable`, 1 or 0. `limits`, `limit` counting rows, and errors: see
    `encode_instructions`.
    """

    def encode(one: LabelledCompletion | Preference) -> list[_Encoded] | str:
        if isinstance(one, Preference):
            if one.is_tie:
                return "identical"
            given = [(one.chosen, True), (one.rejected, False)]
        else:
            given = [(one.completion, one.desirable)]
        if any(desirable and not completion[-1]["content"].strip() for completion, desirable in given):
            return "empty"
        parts = [(_continued(tokenizer, one.prompt, completion), desirable) for completion, desirable in given]
        return [
            (whole.ids, whole.assistant_mask, {"prompt_length": length, "desirable": float(desirable)})
            for (whole, length), desirable in parts
        ]

    counts, writers = _encode(
        ((one.split, one.prompt, one) for one in rows), encode, {"read": 0, "too_long": 0}, **limits
    )
    counts["desirable"] = writers["train"].total("desirable")
    return _written(writers, folder, counts, limits["longest"], "labels")


_Encoded = tuple[list[int], list[bool], dict[str, float]]
"""Ids, mask and columns of an example."""


def _encode(
    rows: Iterable[tuple[str | None, Sequence[Message], Any]],
    encode: Callable[[Any], list[_Encoded] | str],
    counts: dict[str, int],
    *,
    longest: int,
    validation: float,
    limit: int | None = None,
) -> tuple[dict[str, int], dict[str, ExampleWriter]]:
    """The examples of each split, and the counts of what was read and left out. A row is a split (None: by the prompt),
    a prompt, and what `encode` makes examples of, which go together or not at all, or why there are none."""
    writers, taken = {split: ExampleWriter() for split in SPLITS}, 0
    counts["longest_seen"] = 0
    for given, prompt, one in rows:
        counts["read"] += 1
        split = given or split_of(prompt, validation)
        if split == "train" and limit is not None and taken >= limit:
            continue
        with _at(one.place):
            examples = encode(one)
        if isinstance(examples, str):
            counts[examples] = counts.get(examples, 0) + 1
            continue
        size = max(len(ids) for ids, _, _ in examples)
        counts["longest_seen"] = max(counts["longest_seen"], size)
        if size > longest:
            counts["too_long"] += 1
            continue
        taken += split == "train"
        for ids, mask, columns in examples:
            writers[split].add(ids, mask, **columns)
    return counts, writers


def describe_examples(facts: dict[str, Any], what: str) -> list[str]:
    """Lines for people: how much there is, and what was left out."""
    lines = [
        f"{what}: {facts[split]['examples']:,} {'completions' if what == 'preferences' else 'examples'} for {split}, "
        f"{facts[split]['answer_tokens']:,} of {facts[split]['tokens']:,} tokens are completions"
        for split in SPLITS
    ]
    if facts["too_long"]:
        lines.append(
            f"{what}: {facts['too_long']:,} of {facts['read']:,} left out: longer than {facts['longest']:,} tokens "
            f"(the longest: {facts['longest_seen']:,})"
        )
    if "desirable" in facts:
        lines.append(f"{what}: {facts['desirable']:,} of {facts['train']['examples']:,} for train are good completions")
    for key, reason in _LEFT_OUT.items():
        if facts.get(key):
            lines.append(f"{what}: {facts[key]:,} of {facts['read']:,} left out: {reason}")
    return lines


_LEFT_OUT = {"identical": "both completions are the same", "empty": "the completion to learn is empty"}


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors of what an example is rendered with begin with the place it was found at."""
    try:
        yield
    except StageError as error:
        raise StageError(f"{place}: {error.message}", error.hint) if place else error from None


def _learned(message: Message) -> Message:
    """The message; an empty completion is not learned."""
    if message["role"] == "assistant" and not message["content"].strip():
        return {**message, "weight": 0}
    return message


def _continued(
    tokenizer: "Tokenizer", prompt: Sequence[Message], completion: Sequence[Message]
) -> tuple[Conversation, int]:
    """Prompt and completion as one conversation whose mask leaves out what the assistant says in the prompt, and the
    prompt's length, the token that opens the completion included."""
    whole = render(tokenizer, [*prompt, *completion]).until_the_end()
    before = len(render(tokenizer, prompt).ids) if prompt else 1
    mask = [counts and place >= before for place, counts in enumerate(whole.assistant_mask)]
    return Conversation(whole.ids, mask), mask.index(True)


def _request(messages: Sequence[Message]) -> Sequence[Message]:
    """What stands before the first completion."""
    return messages[: next(place for place, message in enumerate(messages) if message["role"] == "assistant")]


def _written(
    writers: dict[str, ExampleWriter],
    folder: Path,
    counts: dict[str, int],
    longest: int,
    what: str,
    names: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    if not counts["read"]:
        raise StageError(f"There are no {what}: no file has a row.", "Check the path.")
    if not len(writers["train"]):
        same = f", {counts['identical']:,} with two equal completions" if "identical" in counts else ""
        same += f", {counts['empty']:,} empty" if "empty" in counts else ""
        raise StageError(
            f"No {what} are left to train on: {counts['read']:,} read, {counts['too_long']:,} longer than {longest:,} "
            f"tokens{same}.",
            "Use other data, or a checkpoint with a longer context.",
        )
    return counts | {
        "longest": longest,
        **{split: writer.write(folder / split, names).describe() for split, writer in writers.items()},
        **({"annotators": names["annotator"]} if names else {}),
    }
