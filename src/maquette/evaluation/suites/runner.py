"""An evaluation from its first question to its last: results of before are read, the rest is computed and kept."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.evaluation.config import ProtocolConfig, SuiteConfig, TemplateConfig
from maquette.evaluation.contamination import ContaminationTest, contamination_test
from maquette.evaluation.likelihood import DocumentLikelihood, measure, windows
from maquette.evaluation.questions.multiple_choice import Result, ask
from maquette.evaluation.questions.questions import Question, QuestionSet, content_prompt, filled, split
from maquette.evaluation.questions.readers import QUESTION
from maquette.evaluation.row_files import Journal
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
class SuiteResults:
    """All results: `answers` by (task, shots), in the order of the task's questions; likelihoods; tests."""

    answers: dict[tuple[str, int], list[Result]]
    likelihoods: list[DocumentLikelihood]
    contamination: dict[str, ContaminationTest]


def count_work(tasks: Sequence[QuestionSet], documents: Documents, suite: SuiteConfig, protocol: ProtocolConfig) -> int:
    """Questions and documents to score, each number of shots by itself, and a test of their order as one more."""
    tested = sum(len(task.questions) for task in _to_test(tasks, suite))
    return len(documents) + sum(len(task.questions) for task in tasks) * len(protocol.shots) + tested


def _to_test(tasks: Sequence[QuestionSet], suite: SuiteConfig) -> list[QuestionSet]:
    """Published tests, whose order may have been learnt."""
    return [task for task in tasks if suite.contamination and task.name in suite.files]


def run_suite(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    tasks: Sequence[QuestionSet],
    documents: Documents,
    *,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    folder: Path,
    advance: Progress = lambda _: None,
) -> SuiteResults:
    """Computes what `folder`'s journal does not hold yet. Killed at any moment, it resumes from the last batch."""
    journal = Journal(folder / "journal.jsonl")
    batch_size_tokens = protocol.batch_size_tokens

    def likelihoods(batch: Documents) -> list[dict[str, Any]]:
        measured = measure(model, tokenizer, batch, stride=suite.stride, batch_size_tokens=batch_size_tokens)
        return [dataclasses.asdict(row) for row in measured]

    def answers(task: QuestionSet, shots: int) -> list[Result]:
        def answer(batch: Sequence[Question]) -> list[Result]:
            return ask(
                model, tokenizer, batch, template_of(protocol, task), pool=task.questions, shots=shots,
                orders=protocol.orders, protocols=protocol.protocols, seed=protocol.seed,
                batch_size_tokens=batch_size_tokens,
            )  # fmt: skip

        return journal.complete(
            {f"question|{task.name}|{shots}|{question.id}": question for question in task.questions}, answer,
            size=lambda question: len(question.context) + max(map(len, question.options)),
            at_once=_QUESTIONS_AT_ONCE, advance=advance,
        )  # fmt: skip

    def test(task: QuestionSet) -> ContaminationTest:
        key, count = f"contamination|{task.name}", len(task.questions)
        if key in journal:
            advance(count)
        else:
            scorer = OrderLikelihood(model, tokenizer, template_of(protocol, task), batch_size_tokens=batch_size_tokens)
            shards = scorer.shards(task.questions)
            each = count / (shards * (_PERMUTATIONS + 1))
            result = contamination_test(
                scorer, task.questions, permutations=_PERMUTATIONS, shards=shards, seed=protocol.seed,
                advance=lambda sequences: advance(each * sequences),
            )  # fmt: skip
            journal.add([(key, dataclasses.asdict(result))])
        return ContaminationTest(**journal[key] | {"differences": tuple(journal[key]["differences"])})

    measured = journal.complete(
        {f"likelihood|{domain}|{name}": (name, domain, text) for name, domain, text in documents}, likelihoods,
        size=lambda document: len(document[2]), at_once=_DOCUMENTS_AT_ONCE, advance=advance,
    )  # fmt: skip
    return SuiteResults(
        {(task.name, shots): answers(task, shots) for shots in protocol.shots for task in tasks},
        [DocumentLikelihood(**row) for row in measured],
        {task.name: test(task) for task in _to_test(tasks, suite)},
    )


def template_of(protocol: ProtocolConfig, task: QuestionSet) -> TemplateConfig:
    """The template that a task is asked with."""
    return protocol.question if task.template == QUESTION else protocol.completion


class OrderLikelihood:
    """Log-likelihood of questions with their right answers, one after another: for the contamination test.

    What is longer than the model's context is read in windows of it that overlap by half, so that every order of a
    shard is of the same questions.
    """

    def __init__(
        self, model: "LanguageModel", tokenizer: "Tokenizer", template: TemplateConfig, *, batch_size_tokens: int = 8192
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._batch_size_tokens = batch_size_tokens

    def shards(self, questions: Sequence[Question]) -> int:
        """Into how many shards a test is best cut: such as fill the context, as many as `_LEAST_SHARDS` at least where
        there are questions enough, and of `_SHARD` questions at least."""
        tokens = sum(len(row) for row in self._tokenizer.encode_batch(list(map(self.text, questions))))
        count = max(_LEAST_SHARDS, -(-tokens // self._model.config.max_position_embeddings))
        return max(2, min(count, len(questions) // _SHARD))

    def many(self, orderings: Sequence[Sequence[Question]]) -> list[float]:
        """One number for each order, in nats."""
        texts = [("", self._template.separator.join(map(self.text, order))) for order in orderings]
        longest = self._model.config.max_position_embeddings
        pairs: list[tuple[list[int], list[int]]] = []
        owner: list[int] = []
        for number, (context, rest) in enumerate(split(self._tokenizer, texts)):
            spans = windows([*context, *rest], longest, max(1, longest // 2))
            pairs += spans
            owner += [number] * len(spans)
        totals = [0.0] * len(orderings)
        rows = score_continuations(self._model, pairs, batch_size_tokens=self._batch_size_tokens)
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
