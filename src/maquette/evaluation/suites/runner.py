"""An evaluation from its first question to its last: what is done already is read, the rest is judged and kept."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.evaluation.config import ProtocolConfig, SuiteConfig, TemplateConfig
from maquette.evaluation.contamination import ContaminationTest, contamination_test
from maquette.evaluation.journal import Journal
from maquette.evaluation.likelihood import DocumentLikelihood, measure, windows
from maquette.evaluation.questions.multiple_choice import Result, ask
from maquette.evaluation.questions.questions import Question, QuestionSet, content_prompt, filled, split
from maquette.evaluation.questions.readers import QUESTION
from maquette.model.scoring import score_continuations

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer

Progress = Callable[[float], None]

_QUESTIONS_AT_ONCE, _DOCUMENTS_AT_ONCE = 32, 8
_LEAST_SHARDS, _SHARD, _PERMUTATIONS = 20, 4, 20

Documents = Sequence[tuple[str, str, str]]
"""(id, domain, text) of each."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """All that was judged: `answers` by (task, shots), in the order of the task's questions; likelihoods; tests."""

    answers: dict[tuple[str, int], list[Result]]
    likelihoods: list[DocumentLikelihood]
    contamination: dict[str, ContaminationTest]


def count_work(tasks: Sequence[QuestionSet], documents: Documents, suite: SuiteConfig, protocol: ProtocolConfig) -> int:
    """Questions and documents to judge, each number of shots by itself, and a test of their order as one more."""
    tested = sum(len(task.questions) for task in _to_test(tasks, suite))
    return len(documents) + sum(len(task.questions) for task in tasks) * len(protocol.shots) + tested


def _to_test(tasks: Sequence[QuestionSet], suite: SuiteConfig) -> list[QuestionSet]:
    """Published tests, whose order may have been learnt."""
    return [task for task in tasks if suite.contamination and task.name in suite.files]


def judge(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    tasks: Sequence[QuestionSet],
    documents: Documents,
    *,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    folder: Path,
    advance: Progress = lambda _: None,
) -> Judged:
    """Judges what `folder`'s journal does not hold yet. Killed at any moment, it goes on from the last batch."""
    journal = Journal(folder / "journal.jsonl")
    likelihoods = _documents(model, tokenizer, documents, suite, protocol, journal, advance)
    answers = {
        (task.name, shots): _answers(model, tokenizer, task, shots, protocol, journal, advance)
        for shots in protocol.shots
        for task in tasks
    }
    tests = {task.name: _tested(model, tokenizer, task, protocol, journal, advance) for task in _to_test(tasks, suite)}
    return Judged(answers, likelihoods, tests)


def template_of(protocol: ProtocolConfig, task: QuestionSet) -> TemplateConfig:
    """The template that a task is asked with."""
    return protocol.question if task.template == QUESTION else protocol.completion


def _documents(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    documents: Documents,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    journal: Journal,
    advance: Progress,
) -> list[DocumentLikelihood]:
    keys = [f"likelihood|{domain}|{name}" for name, domain, _ in documents]
    waiting = [place for place, key in enumerate(keys) if key not in journal]
    advance(len(documents) - len(waiting))
    waiting.sort(key=lambda place: -len(documents[place][2]))
    for start in range(0, len(waiting), _DOCUMENTS_AT_ONCE):
        places = waiting[start : start + _DOCUMENTS_AT_ONCE]
        found = measure(
            model, tokenizer, [documents[place] for place in places], stride=suite.stride,
            batch_size_tokens=protocol.batch_size_tokens,
        )  # fmt: skip
        journal.add((keys[place], dataclasses.asdict(row)) for place, row in zip(places, found, strict=True))
        advance(len(places))
    return [DocumentLikelihood(**journal[key]) for key in keys]


def _answers(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    task: QuestionSet,
    shots: int,
    protocol: ProtocolConfig,
    journal: Journal,
    advance: Progress,
) -> list[Result]:
    keys = {question.id: f"question|{task.name}|{shots}|{question.id}" for question in task.questions}
    waiting = [question for question in task.questions if keys[question.id] not in journal]
    advance(len(task.questions) - len(waiting))
    waiting.sort(key=lambda question: -len(question.context) - max(map(len, question.options)))
    for start in range(0, len(waiting), _QUESTIONS_AT_ONCE):
        batch = waiting[start : start + _QUESTIONS_AT_ONCE]
        found = ask(
            model, tokenizer, batch, template_of(protocol, task), pool=task.questions, shots=shots,
            orders=protocol.orders, protocols=protocol.protocols, seed=protocol.seed,
            batch_size_tokens=protocol.batch_size_tokens,
        )  # fmt: skip
        journal.add((keys[question.id], row) for question, row in zip(batch, found, strict=True))
        advance(len(batch))
    return [journal[keys[question.id]] for question in task.questions]


def _tested(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    task: QuestionSet,
    protocol: ProtocolConfig,
    journal: Journal,
    advance: Progress,
) -> ContaminationTest:
    key = f"contamination|{task.name}"
    count = len(task.questions)
    if key in journal:
        advance(count)
    else:
        scorer = OrderLikelihood(
            model, tokenizer, template_of(protocol, task), batch_size_tokens=protocol.batch_size_tokens
        )
        shards = scorer.shards(task.questions)
        each = count / (shards * (_PERMUTATIONS + 1))
        found = contamination_test(
            scorer, task.questions, permutations=_PERMUTATIONS, shards=shards, seed=protocol.seed,
            advance=lambda sequences: advance(each * sequences),
        )  # fmt: skip
        journal.add([(key, dataclasses.asdict(found))])
    row = journal[key]
    return ContaminationTest(row["p_value"], row["statistic"], tuple(row["differences"]))


class OrderLikelihood:
    """Log-likelihood of questions with their right answers, one after another: for the contamination test.

    What is longer than the model's context is read in windows of it that overlap by half, so that every order of a
    shard is of the same questions.
    """

    def __init__(
        self, model: "LanguageModel", tokenizer: "Tokenizer", template: TemplateConfig, *, batch_size_tokens: int = 8192
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._batch_tokens = batch_size_tokens

    def shards(self, questions: Sequence[Question]) -> int:
        """Into how many shards a test is best cut: such as fill the context, as many as `_LEAST_SHARDS` at least where
        there are questions enough, and of `_SHARD` questions at least."""
        tokens = sum(len(row) for row in self._tokenizer.encode_batch(list(map(self.text, questions))))
        wanted = max(_LEAST_SHARDS, -(-tokens // self._model.config.max_position_embeddings))
        return max(2, min(wanted, len(questions) // _SHARD))

    def many(self, orderings: Sequence[Sequence[Question]]) -> list[float]:
        """One number for each order, in nats."""
        texts = [("", self._template.separator.join(map(self.text, order))) for order in orderings]
        longest = self._model.config.max_position_embeddings
        pairs: list[tuple[list[int], list[int]]] = []
        owner: list[int] = []
        for number, (context, rest) in enumerate(split(self._tokenizer, texts)):
            found = windows([*context, *rest], longest, max(1, longest // 2))
            pairs += found
            owner += [number] * len(found)
        totals = [0.0] * len(orderings)
        rows = score_continuations(self._model, pairs, batch_size_tokens=self._batch_tokens)
        for number, row in zip(owner, rows, strict=True):
            totals[number] += row.log_prob
        return totals

    def __call__(self, order: Sequence[Question]) -> float:
        return self.many([order])[0]

    def text(self, question: Question) -> str:
        """A question and its right answer, as a published file would hold them."""
        bare = dataclasses.replace(self._template, description="")
        return content_prompt(bare, question, ()) + filled(
            self._template.answer, option=question.options[question.answer]
        )
