"""Instructions that a model writes: what is read from a reply, what is kept, and that nothing is asked twice."""

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import instruct
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import InstructStage
from maquette.cli.command_line.registry import STAGES
from maquette.data.conversations import ExampleFiles
from maquette.feedback.chat_models import Reply
from maquette.feedback.instruct.filters import NOVELTY, REASONS, TaskFilter, WordCodes, faults, rouge_l_of_nearest
from maquette.feedback.instruct.report import variety, verb_and_noun
from maquette.feedback.instruct.tasks import WrittenTask, read_seeds, read_tasks, request_messages, seed_file
from maquette.feedback.instruct.writing import read_journal, write_instructions
from maquette.text.chat import Message
from support.chat_server import ChatServer
from support.warm_processes import start_maquette

pytestmark = pytest.mark.usefixtures("no_pictures")

SEEDS = read_seeds(seed_file(None))
SUBJECTS = ("bread", "clouds", "keys", "rivers", "letters", "horses", "clocks", "bridges", "gardens", "stones")


def task_text(number: int, subject: str) -> str:
    instruction = f"Tell me one true thing about {subject} {number}."
    return f"Task {number}\nInstruction: {instruction}\nInput: (none)\nOutput: It is {subject}."


def replied(messages: Sequence[Message]) -> str:
    """Two tasks that depend on what was asked alone; the first is new to each request."""
    subject = SUBJECTS[sum(map(ord, messages[1]["content"])) % len(SUBJECTS)]
    other = re.sub(r"\W+", " ", messages[1]["content"])[-40:].strip()
    return f"Task 4\nInstruction: {other}, {subject}?\nInput: (none)\nOutput: {subject}\n\n" + task_text(5, subject)


class Author:
    """Replies by `replied`, and remembers what it was asked."""

    name = "author"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask_all(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> Iterator[tuple[int, Reply]]:
        for place, messages in reversed(list(enumerate(conversations))):  # the last is ready first
            self.asked.append(messages[1]["content"])
            yield place, Reply(replied(messages), 100, 20, seconds=0.5)


def written(instruction: str, output: str = "Yes, it is.", **rest: Any) -> WrittenTask:
    return WrittenTask(instruction, rest.pop("input", ""), output, 0, 1, **rest)


def test_the_seed_tasks_are_175_of_many_kinds_and_pass_their_own_filters() -> None:
    assert len(SEEDS) == 175 and len({one.category for one in SEEDS}) >= 15
    tasks = [WrittenTask(one.instruction, one.input, one.output, 0, 1) for one in SEEDS]
    assert {one.instruction: list(faults(one)) for one in tasks if list(faults(one))} == {}
    task_filter = TaskFilter(SEEDS[:1])
    task_filter.add(tasks[1:])
    assert task_filter.rejected == []  # no two of them are alike


def test_rouge_l_is_that_of_rouge_score() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="needs the extra evaluation")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    codes = WordCodes()
    texts = [one.instruction for one in SEEDS[::9]]
    pool = [codes.code(text) for text in texts]
    for text in [one.instruction for one in SEEDS[1::7]] + ["", "sentence the rewrite sentence polite so polite"]:
        theirs = [scorer.score(other, text)["rougeL"].fmeasure for other in texts]
        similarity, place = rouge_l_of_nearest(codes.code(text), pool)
        assert similarity == pytest.approx(max(theirs), abs=1e-9) and theirs[place] == pytest.approx(max(theirs))


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (written("Name a river of Asia that reaches the sea.", "The Mekong."), None),
        (written("Name a river.", ""), "format"),
        (written("Name a river of Asia.", "Input: none\nOutput: The Mekong."), "format"),
        (written("Name a river of Asia.", "The Me", cut=True), "cut off"),
        (written("River?", "The Mekong."), "length"),
        (written("Name all rivers of Asia.", "water " * 260), "length"),
        (written("Tell me your age.", "As an AI language model, I have none."), "refusal"),
        (written("Tell me who lives next door.", "I'm sorry, but I can't tell."), "refusal"),
        (written("Apologise to a guest for a cold soup.", "I am sorry that your soup was cold."), None),
        (written("Write a function that adds two numbers."), "code"),
        (written("Add two numbers for me.", "```\nprint(1 + 2)\n```"), "code"),
        (written("Describe the picture below in one sentence."), "not text"),
        (written("Summarise the article at https://example.org/a."), "not text"),
        (written("Make the sentence polite, would you?", "Sit down!", input="Sit down!"), "echo"),
        (written("Tell a story of a dog.", "The dog ran and ran far. " * 8), "repetition"),
        (written("Rewrite the sentence so that it sounds very polite.", "Would you?"), "not new"),
    ],
)  # fmt: skip
def test_why_a_task_is_left_out(task: WrittenTask, reason: str | None) -> None:
    task_filter = TaskFilter(SEEDS)
    task_filter.add([task])
    [decision] = task_filter.accepted + task_filter.rejected
    assert decision.reason == reason and (reason is None or reason in REASONS)
    if reason == "not new":
        assert decision.similarity >= NOVELTY and decision.nearest == SEEDS[0].instruction


def test_a_task_is_not_new_after_its_like() -> None:
    task_filter = TaskFilter(SEEDS)
    task = written("Tell which of two ships is faster.", "The one with sails.")
    task_filter.add([task, task])
    assert [one.reason for one in task_filter.rejected] == ["not new"] and len(task_filter.accepted) == 1
    assert task_filter.rejected[0].similarity == 1.0


def test_tasks_are_read_in_whatever_markup() -> None:
    text = (
        "Sure, here they are:\n\n**Task 4**\n**Instruction:** Name a fish.\n**Input:** (none)\n**Output:** Carp.\n\n"
        "---\n\n5. Instruction: Sort.\nInput:\nb\na\nOutput: a\nb\n\nTask 6: Say hello.\nOutput: Hello!\nOutput: Hi!\n"
        "Task 7\nInstr"
    )
    tasks = read_tasks(Reply(text, cut=True), 3)
    assert [(one.instruction, one.input, one.output) for one in tasks] == [
        ("Name a fish.", "", "Carp."), ("Sort.", "b\na", "a\nb"),
        ("Say hello.", "", "Hello!\nOutput: Hi!\n\nInstr"),
    ]  # fmt: skip
    assert [one.cut for one in tasks] == [False, False, True] and {one.request for one in tasks} == {3}
    [shapeless] = read_tasks(Reply("I would rather not."), 0)
    assert next(faults(shapeless)) == "format" and shapeless.output == "I would rather not."


def test_a_request_is_a_function_of_its_number() -> None:
    first = request_messages(SEEDS, 0, count=4, seed=1)
    assert first == request_messages(SEEDS, 0, count=4, seed=1) != request_messages(SEEDS, 1, count=4, seed=1)
    assert [one["role"] for one in first] == ["user", "assistant", "user"] and "tasks 4 to 7" in first[2]["content"]
    shown = read_tasks(Reply(first[1]["content"]), 0)
    known = {(one.instruction, one.input, one.output) for one in SEEDS}
    assert len(shown) == 3 and all((one.instruction, one.input, one.output) in known for one in shown)


def test_what_the_journal_has_is_not_asked_again(tmp_path: Path) -> None:
    journal, settings = tmp_path / "journal.jsonl", {"requests": 100, "tasks_per_request": 2, "at_once": 3, "seed": 0}
    whole = write_instructions(Author(), SEEDS, tmp_path / "whole.jsonl", count=8, **settings)

    few, many = Author(), Author()
    write_instructions(few, SEEDS, journal, count=4, **settings)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])  # killed while it wrote
    resumed = write_instructions(many, SEEDS, journal, count=8, **settings)
    assert [one.task for one in resumed.task_filter.accepted] == [one.task for one in whole.task_filter.accepted]
    assert len(resumed.task_filter.accepted) >= 8 and set(few.asked) & set(many.asked) == {few.asked[-1]}
    assert len(set(many.asked)) == len(many.asked)

    nobody = Author()
    again = write_instructions(nobody, SEEDS, journal, count=8, **settings)
    assert nobody.asked == [] and again.task_filter.accepted == resumed.task_filter.accepted
    journal.write_text(journal.read_text().replace('"seconds": 0.5', '"seconds": 9.5', 1))
    with pytest.raises(StageError, match=r"journal\.jsonl, line 1 is damaged"):
        read_journal(journal)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Write a short story about a dog.", ("write", "story")),
        ("Please give me three good tips for sleep", ("give", "tips")),
        ("Can you translate the following sentence into French?", ("translate", "sentence")),
        ("What is the capital of Norway?", ("what", "")),
        ("Explain why ice floats.", ("explain", "")),
        ("Summarise", ("summarise", "")),
        ("...", ("", "")),
    ],
)
def test_verb_and_noun(instruction: str, expected: tuple[str, str]) -> None:
    assert verb_and_noun(instruction) == expected


def test_variety_counts_distinct_pairs() -> None:
    facts = variety(["Write a poem.", "Write a poem about snow.", "Name a river."])
    assert (facts["verbs"], facts["pairs"], facts["most_frequent"][0]) == (2, 2, ("write", "poem", 2))


# The stage ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ChatServer]:
    one = ChatServer()
    one.reply_to = replied
    yield one
    one.close()


def settings(outputs: Path, server: ChatServer, *overrides: str) -> InstructStage:
    config = compose(
        STAGES["instruct"],
        [f"outputs='{outputs}'", "tracking=none", f"author.url={server.url}", "author.model=a/big", *overrides],
    )
    assert isinstance(config, InstructStage)
    return config


def test_from_a_server_to_sft_data(tmp_path: Path, server: ChatServer) -> None:
    folder = instruct.run(settings(tmp_path, server, "count=6", "author.input_price=5", "author.output_price=50"))
    rows = list(ExampleFiles(folder / "instructions.jsonl", "instructions").examples())
    assert len(rows) >= 6 and rows[0].messages[-1]["role"] == "assistant"
    facts = json.loads((folder / "report.json").read_text())
    assert facts["accepted"] == len(rows) and facts["requests"] == len(server.requests)
    assert facts["dollars"] == pytest.approx(facts["requests"] * (100 * 5 + 2 * 50) / 1e6)
    assert facts["accepted"] + sum(facts["reasons"].values()) == facts["tries"]
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in rejected} == set(facts["reasons"]) and rejected[0]["nearest"]
    request = server.requests[0]
    assert (request["temperature"], request["top_p"], request["max_tokens"]) == (0.8, 0.95, 1024) and "seed" in request
    page = (folder / "index.html").read_text()
    assert "$0.000" in page and "ROUGE-L" in page and rows[0].messages[0]["content"].split("\n")[0][:20] in page
    asked = len(server.requests)
    assert instruct.run(settings(tmp_path, server, "count=6")) == folder and len(server.requests) == asked


def test_a_server_that_breaks_off_loses_nothing(tmp_path: Path, server: ChatServer) -> None:
    server.failures = [(401, {})]
    with pytest.raises(StageError, match="refuses the question"):
        instruct.run(settings(tmp_path, server, "count=4", "author.workers=4"))
    [journal] = (tmp_path / "instructions").glob("*/journal.jsonl")
    assert len(read_journal(journal)) == 3
    instruct.run(settings(tmp_path, server, "count=1", "author.workers=4"))
    assert len(read_journal(journal)) == 4 and len(server.requests) == 5


def test_misuse_is_told(tmp_path: Path, server: ChatServer) -> None:
    with pytest.raises(ConfigError, match=r"author\.checkpoint and author\.url are both given"):
        settings(tmp_path, server, "author.checkpoint=latest")
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"instruction": "Name a fish.", "output": "Carp."}\n{"instruction": "Name a bird."}\n')
    with pytest.raises(StageError, match=r"seeds\.jsonl, line 2 is not a seed task"):
        instruct.run(settings(tmp_path, server, f"seeds='{seeds}'"))
    server.reply_to = lambda messages: "No."
    with pytest.raises(StageError, match="None of 2 tasks that a/big wrote could be kept"):
        instruct.run(settings(tmp_path, server, "requests=2"))
    [page] = (tmp_path / "instructions").glob("a-big-*/index.html")
    assert "a part is missing" in page.read_text()


@pytest.mark.slow(reason="starts a process that imports everything, to be killed")
def test_a_kill_at_any_moment_repeats_nothing(tmp_path: Path, server: ChatServer) -> None:
    """The process is killed by its own server, in the middle of a batch."""
    words = ["tracking=none", f"author.url={server.url}", "count=5", "author.workers=1"]
    process = start_maquette("instruct", f"outputs={tmp_path}", *words)

    def kills(messages: Sequence[Message]) -> str:
        if len(server.requests) == 3:
            os.kill(process.pid, signal.SIGKILL)
        return replied(messages)

    server.reply_to = kills
    assert process.wait(timeout=300) == -signal.SIGKILL
    server.reply_to = replied
    instruct.run(settings(tmp_path, server, "count=5", "author.workers=1", "author.model=gpt-4o-mini"))
    contents = [request["messages"][1]["content"] for request in server.requests]
    assert len(contents) - len(set(contents)) <= 1  # only what was under way when it was killed
    assert contents[:2] == list(dict.fromkeys(contents))[:2]
