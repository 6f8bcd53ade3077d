"""From seed tasks to instructions: requests to an author, a journal of its replies, and what is kept of them.

The journal (`journal.jsonl`) is the only thing that costs: a line for each reply, on the disk before the next is asked
for. Which tasks are kept is worked out from it, so a run that was killed at any moment, or is continued with a larger
`count`, asks for what it lacks and nothing else.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maquette.artifacts.files import append_rows, cut_half_line, write_json, write_text
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import check_seal, read_log, reading, sealed
from maquette.feedback.chat_models import AuthorModel, Reply
from maquette.feedback.config import AuthorConfig
from maquette.feedback.instruct.filters import TaskFilter
from maquette.feedback.instruct.tasks import SeedTask, instruction_row, read_tasks, request_messages
from maquette.model.generation import row_seed

INSTRUCTIONS, REJECTED, JOURNAL, FACTS = "instructions.jsonl", "rejected.jsonl", "journal.jsonl", "report.json"

_HINT = "Remove the line: what it held is asked for again."


@dataclass(frozen=True)
class Written:
    """All that came of the requests: `replies` by number of request, and what was decided on their tasks."""

    replies: dict[int, Reply]
    task_filter: TaskFilter


def write_instructions(
    author: AuthorModel,
    seeds: Sequence[SeedTask],
    journal: Path,
    *,
    count: int,
    requests: int,
    tasks_per_request: int,
    at_once: int,
    seed: int,
) -> Written:
    """Asks until `count` tasks are kept or `requests` were made, `at_once` at a time. What the journal has is not asked
    again, and counts. Raises `StageError` where the author does not reply, or the journal is damaged."""
    replies = read_journal(journal)
    task_filter, number = TaskFilter(seeds), 0
    last = max(replies, default=-1)
    with progress("writing instructions", count, unit="accepted") as advance:
        while number <= last or (len(task_filter.accepted) < count and number < requests):
            batch = range(number, min(number + at_once, last + 1 if number <= last else requests))
            missing = [one for one in batch if one not in replies]
            conversations = [request_messages(seeds, one, count=tasks_per_request, seed=seed) for one in missing]
            for place, reply in author.ask_all(conversations, [row_seed(seed, one) >> 32 for one in missing]):
                append_rows(journal, [sealed({"request": missing[place], **asdict(reply)})])
                replies[missing[place]] = reply
            before = len(task_filter.accepted)
            for one in batch:
                task_filter.add(read_tasks(replies[one], one))
            advance(len(task_filter.accepted) - before)
            number = batch.stop
    return Written(replies, task_filter)


def read_journal(path: Path) -> dict[int, Reply]:
    """The replies of a journal by the number of their request; a line that a crash cut is left out. Raises `StageError`
    for a line that was changed."""
    cut_half_line(path)
    replies = {}
    for where, row in read_log(path, hint=_HINT):
        check_seal(row if isinstance(row, dict) else {}, where, hint=_HINT)
        with reading(where, hint=_HINT):
            values = {key: value for key, value in row.items() if key not in ("request", "checksum")}
            replies[int(row["request"])] = Reply(**values)
    return replies


def write_outcome(folder: Path, written: Written, author: AuthorConfig, name: str) -> dict[str, Any]:
    """Writes instructions.jsonl and rejected.jsonl; returns what there is to say of them, which is report.json too."""
    accepted, rejected = written.task_filter.accepted, written.task_filter.rejected
    _write_rows(folder / INSTRUCTIONS, [instruction_row(one.task, name) for one in accepted])
    _write_rows(folder / REJECTED, [_rejected_row(one) for one in rejected])
    replies = written.replies.values()
    facts = {
        "author": name,
        "requests": len(written.replies),
        "tries": len(accepted) + len(rejected),
        "accepted": len(accepted),
        "reasons": dict(Counter(one.reason for one in rejected).most_common()),
        "prompt_tokens": sum(one.prompt_tokens for one in replies),
        "completion_tokens": sum(one.completion_tokens for one in replies),
        "seconds": sum(one.seconds for one in replies),
        "dollars": sum(one.dollars(author.input_price, author.output_price) for one in replies),
    }
    write_json(folder / FACTS, facts)
    say(f"{name}: {len(accepted):,} of {facts['tries']:,} tasks kept, of {facts['requests']:,} requests")
    return facts


def _rejected_row(one: Any) -> dict[str, Any]:
    row = {"reason": one.reason, **asdict(one.task)}
    return row | ({"similarity": round(one.similarity, 3), "nearest": one.nearest} if one.nearest else {})


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
