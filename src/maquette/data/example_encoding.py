"""From instructions and preferences to ids, through the one chat template. What is too long is left out and counted."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.data.examples import SPLITS, ExampleWriter, split_of
from maquette.data.instructions import Instruction
from maquette.data.preferences import Preference
from maquette.text.chat import Conversation, Message, render

if TYPE_CHECKING:
    from maquette.text import Tokenizer


def encode_instructions(
    instructions: Iterable[Instruction],
    tokenizer: "Tokenizer",
    folder: Path,
    *,
    longest: int,
    validation: float,
    limit: int | None = None,
) -> dict[str, Any]:
    """Writes `folder/train` and `folder/validation`; returns the counts for the manifest.

    `longest`: tokens that an example may have. `limit`: training examples at most, the first ones; the held-out ones
    are the same for any limit. Raises `StageError` where nothing is left to train on.
    """
    writers = {split: ExampleWriter() for split in SPLITS}
    counts = {"read": 0, "too_long": 0, "longest_seen": 0}
    for one in instructions:
        counts["read"] += 1
        split = one.split or split_of(_request(one.messages), validation)
        if split == "train" and limit is not None and len(writers[split]) >= limit:
            continue
        conversation = render(tokenizer, one.messages)
        counts["longest_seen"] = max(counts["longest_seen"], len(conversation.ids))
        if len(conversation.ids) > longest:
            counts["too_long"] += 1
            continue
        writers[split].add(conversation.ids, conversation.assistant_mask)
    return _written(writers, folder, counts, longest, "instructions")


def encode_preferences(
    preferences: Iterable[Preference],
    tokenizer: "Tokenizer",
    folder: Path,
    *,
    longest: int,
    validation: float,
    limit: int | None = None,
) -> dict[str, Any]:
    """Writes `folder/train` and `folder/validation`, where examples 2 k and 2 k + 1 are the wanted and the unwanted
    answer of pair k; returns the counts. The mask is true for what the assistant wrote after the prompt.

    Columns: `prompt_length`, `annotator`, `margin` and `probability` (NaN where it has none). Pairs of equal answers
    are left out and counted, as those are that do not fit `longest`. Raises `StageError` where nothing is left.
    """
    writers = {split: ExampleWriter() for split in SPLITS}
    counts = {"read": 0, "too_long": 0, "identical": 0, "longest_seen": 0}
    annotators: dict[str, int] = {}
    for one in preferences:
        counts["read"] += 1
        if one.is_tie:
            counts["identical"] += 1
            continue
        split = one.split or split_of(one.prompt, validation)
        if split == "train" and limit is not None and len(writers[split]) >= 2 * limit:
            continue
        answers = [_continued(tokenizer, one.prompt, answer) for answer in (one.chosen, one.rejected)]
        counts["longest_seen"] = max(counts["longest_seen"], *(len(answer.ids) for answer, _ in answers))
        if any(len(answer.ids) > longest for answer, _ in answers):
            counts["too_long"] += 1
            continue
        for answer, prompt_length in answers:
            writers[split].add(
                answer.ids,
                answer.assistant_mask,
                prompt_length=prompt_length,
                annotator=annotators.setdefault(one.annotator, len(annotators)),
                margin=float("nan") if one.margin is None else one.margin,
                probability=float("nan") if one.probability is None else one.probability,
            )
    return _written(writers, folder, counts, longest, "preferences", {"annotator": list(annotators)})


def describe_examples(facts: dict[str, Any], what: str) -> list[str]:
    """Lines for people: how much there is, and what was left out."""
    lines = [
        f"{what}: {facts[split]['examples']:,} {'answers' if what == 'preferences' else 'examples'} for {split}, "
        f"{facts[split]['answer_tokens']:,} of {facts[split]['tokens']:,} tokens are answers"
        for split in SPLITS
    ]
    if facts["too_long"]:
        lines.append(
            f"{what}: {facts['too_long']:,} of {facts['read']:,} left out: longer than {facts['longest']:,} tokens "
            f"(the longest: {facts['longest_seen']:,})"
        )
    if facts.get("identical"):
        lines.append(f"{what}: {facts['identical']:,} of {facts['read']:,} left out: both answers are the same")
    return lines


def _continued(
    tokenizer: "Tokenizer", prompt: Sequence[Message], answer: Sequence[Message]
) -> tuple[Conversation, int]:
    """Prompt and answer as one conversation whose mask leaves out what the assistant says in the prompt, and the
    prompt's length, the token that opens the answer included."""
    whole = render(tokenizer, [*prompt, *answer])
    before = len(render(tokenizer, prompt).ids) if prompt else 1
    mask = [counts and place >= before for place, counts in enumerate(whole.assistant_mask)]
    return Conversation(whole.ids, mask), mask.index(True)


def _request(messages: Sequence[Message]) -> Sequence[Message]:
    """What stands before the first answer."""
    return messages[: next(place for place, message in enumerate(messages) if message["role"] == "assistant")]


def _written(
    writers: dict[str, ExampleWriter],
    folder: Path,
    counts: dict[str, int],
    longest: int,
    what: str,
    names: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    if not len(writers["train"]):
        raise StageError(
            f"No {what} are left to train on: {counts['read']:,} read, {counts['too_long']:,} longer than {longest:,} "
            f"tokens, {counts.get('identical', 0):,} with two equal answers.",
            "Use other data, or a checkpoint with a longer context.",
        )
    return counts | {
        "longest": longest,
        **{split: writer.write(folder / split, names).describe() for split, writer in writers.items()},
        **({"annotators": names["annotator"]} if names else {}),
    }
