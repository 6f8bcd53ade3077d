"""Which of the tasks that a model wrote are kept, and why the others are not.

Wang et al. 2023 (Self-Instruct), section 2.2, and Alpaca's generate_instruction.py for the rules: an instruction has to
differ from all before it by ROUGE-L, must not need what text cannot show, and must not be too long or too short.
ROUGE-L (Lin 2004) of two instructions is the F measure of their longest common subsequence of words, 2 LCS / (m + n):
what `rapidfuzz` calls the normalised indel similarity, in compiled code (a test compares it with `rouge-score`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maquette.feedback.instruct.tasks import SeedTask, WrittenTask, repeats_a_part

NOVELTY = 0.7
"""ROUGE-L with any task before, from which an instruction is not new."""

INSTRUCTION_WORDS = (3, 150)
OUTPUT_WORDS = (1, 250)

REASONS = {
    "format": "a part is missing, or there twice",
    "cut off": "the reply ended within the task",
    "length": f"an instruction of less than {INSTRUCTION_WORDS[0]} or more than {INSTRUCTION_WORDS[1]} words, or an "
    f"output of more than {OUTPUT_WORDS[1]}",
    "refusal": "the output declines, or speaks of being a language model",
    "code": "it asks for a program, or answers with one",
    "not text": "it needs pictures, sounds, files or web pages",
    "echo": "the output only repeats instruction or input",
    "repetition": "the output says the same again and again",
    "not new": f"ROUGE-L of {NOVELTY} or more with a seed task or one that was kept before",
}
"""Why a task is left out, in the order in which it is looked for."""

_REFUSAL = re.compile(
    r"\b(as|i am|i'm) an? (ai|artificial intelligence|(large )?language model)\b|\bas a (large )?language model\b"
    r"|^\W*(i'?m|i am) sorry,? (but )?i (can'?t|cannot|am (not able|unable)|don'?t)\b"
    r"|^\W*(unfortunately,? )?i('m| am)? (can'?t|cannot|unable to|not able to) "
    r"(help|assist|answer|provide|fulfil|comply|complete|create|generate|access|do that)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"\b(python|java|javascript|typescript|html|css|sql|bash|regex|regular expression|c\+\+)(?!\w)"
    r"|\b(write|create|implement|develop|debug|build|design|run)\b[^.?!]{0,40}?"
    r"\b(programs?|scripts?|code|functions?|algorithms?|class|software|apps?|applications?)\b",
    re.IGNORECASE,
)
_CODE_OUTPUT = re.compile(r"```|^\s*(def |import \w|class \w+[:(]|#include|<html|SELECT .+ FROM )", re.MULTILINE)
_NOT_TEXT = re.compile(
    r"\b(images?|pictures?|photo(graph)?s?|diagrams?|flow ?charts?|graphs?|charts?|infographics?|maps?|drawings?|draw|"
    r"sketch|paint|videos?|audio|sound ?tracks?|slides?|listen to|files?|attach(ed|ments?)|hyperlinks?|links?|urls?|"
    r"web ?sites?|web ?pages?|screenshots?|upload|download|click|spreadsheets?)\b|https?://",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Words as ROUGE counts them: runs of letters and digits, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


@dataclass(frozen=True)
class Decision:
    """`reason` is None where the task is kept. `similarity`: ROUGE-L with the `nearest` instruction before it, 0 and
    empty where something else was wrong first; `nearest_seed` and `seed_similarity` the same among seeds alone."""

    task: WrittenTask
    reason: str | None
    similarity: float = 0.0
    nearest: str = ""
    seed_similarity: float = 0.0
    nearest_seed: str = ""


class TaskFilter:
    """Decides on tasks one after the other: what was kept counts for what comes. In the same order the same tasks are
    kept, whenever they were written."""

    def __init__(self, seeds: Sequence[SeedTask]) -> None:
        self.accepted: list[Decision] = []
        self.rejected: list[Decision] = []
        self._texts = [one.instruction for one in seeds]
        self._words = WordCodes()
        self._pool = [self._words.code(text) for text in self._texts]
        self._seeds = len(seeds)

    def add(self, tasks: Sequence[WrittenTask]) -> None:
        for task in tasks:
            decision = self._decide(task)
            if decision.reason is not None:
                self.rejected.append(decision)
                continue
            self.accepted.append(decision)
            self._texts.append(task.instruction)
            self._pool.append(self._words.code(task.instruction))

    def _decide(self, task: WrittenTask) -> Decision:
        if (fault := next(faults(task), None)) is not None:
            return Decision(task, fault)
        own = self._words.code(task.instruction)
        similarity, nearest = rouge_l_of_nearest(own, self._pool)
        seed_similarity, seed = rouge_l_of_nearest(own, self._pool[: self._seeds])
        reason = "not new" if similarity >= NOVELTY else None
        return Decision(task, reason, similarity, self._texts[nearest], seed_similarity, self._texts[seed])


class WordCodes:
    """A character for each word, so that texts are compared word by word as strings, which compiled code does fast."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}

    def code(self, text: str) -> str:
        return "".join(self._codes.setdefault(word, chr(0x10000 + len(self._codes))) for word in words(text))


def faults(task: WrittenTask) -> Iterator[str]:
    """What is wrong with a task by itself, in the order of `REASONS`."""
    asked, output = words(task.instruction), words(task.output)
    if not task.instruction or not task.output or repeats_a_part(task.output):
        yield "format"
    if task.cut:
        yield "cut off"
    if not INSTRUCTION_WORDS[0] <= len(asked) <= INSTRUCTION_WORDS[1] or len(output) > OUTPUT_WORDS[1]:
        yield "length"
    if _REFUSAL.search(task.output):
        yield "refusal"
    if _CODE.search(task.instruction) or _CODE_OUTPUT.search(task.output):
        yield "code"
    if _NOT_TEXT.search(task.instruction):
        yield "not text"
    if task.output == task.input or f" {' '.join(asked)} " in f" {' '.join(output)} ":
        yield "echo"
    if _loops(output):
        yield "repetition"


def rouge_l_of_nearest(own: str, others: Sequence[str]) -> tuple[float, int]:
    """ROUGE-L of a text with the nearest of `others` (at least one), and its place; all of them in `WordCodes`."""
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    _, similarity, place = process.extractOne(own, others, scorer=Indel.normalized_similarity)
    return float(similarity), int(place)


_RUN = 4
"""Words of a run that a text has only once, unless it loops."""


def _loops(output: Sequence[str]) -> bool:
    """Whether more than half of the runs of four words have been there before."""
    runs = [tuple(output[start : start + _RUN]) for start in range(len(output) - _RUN + 1)]
    return len(runs) > 2 * _RUN and len(set(runs)) < 0.5 * len(runs)
