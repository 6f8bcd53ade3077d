"""An evaluation from what is asked to its results: tasks from held-out documents, tasks from files, and documents whose
likelihood is measured. Results of before are read, the rest is computed and kept.

Held out is, of the corpus that a run was trained on, the test split.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, listed
from maquette.artifacts.manifest import read_manifest, verify_file
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import open_parquet
from maquette.artifacts.settings import from_table
from maquette.evaluation.config import ProtocolConfig, SuiteConfig, TemplateConfig
from maquette.evaluation.contamination import ContaminationTest, contamination_test
from maquette.evaluation.embedded_questions import make_task
from maquette.evaluation.free_form import ask_freely
from maquette.evaluation.journal import Journal
from maquette.evaluation.likelihood import DocumentLikelihood, measure, score_windows
from maquette.evaluation.multiple_choice import Result, ask
from maquette.evaluation.question_files import QUESTION, read_task
from maquette.evaluation.questions import FREE, Question, QuestionSet, content_prompt, filled, split
from maquette.feedback.building import build_annotator
from maquette.feedback.config import FeedbackConfig
from maquette.training import read_record

if TYPE_CHECKING:
    from maquette.corpus.document import Document
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """A split of a corpus artifact; `digest` of the corpus."""

    folder: Path
    split: str
    digest: str

    def documents(self) -> list["Document"]:
        """All of them, in their stable order."""
        from maquette.corpus.document import read_documents

        return list(read_documents(self.folder, self.split))


def find_held_out(corpus: str | None, outputs: str | Path, checkpoint: Path) -> HeldOut:
    """The corpus that `corpus` names (a folder or an artifact); by default that of the run, else the newest.

    Raises `StageError` where there is none, or it holds nothing out.
    """
    root = Path(outputs) / "artifacts" / "corpus"
    if corpus is not None:
        folder = Path(corpus) if Path(corpus).is_dir() else root / corpus
    else:
        folder = _of_run(root, checkpoint)
    manifest = read_manifest(folder)
    for name in ("test", "validation"):
        if _rows(path := folder / f"{name}.parquet"):
            verify_file(path)
            return HeldOut(folder, name, manifest.digest)
    raise StageError(f"{folder} holds out no documents.", "Make a corpus with corpus.test=0.03.")


def _of_run(root: Path, checkpoint: Path) -> Path:
    folders = [path.parent for path in listed(root, "*/manifest.json")]
    if not folders:
        raise StageError(f"There is no corpus in {root}.", "Make one with maquette corpus, or give corpus=<folder>.")
    record = read_record(checkpoint) or read_record(checkpoint.parent)
    if record is not None:
        for folder in folders:
            if read_manifest(folder).digest == record.spec.digests.get("corpus"):
                return folder
        say(f"the corpus of {checkpoint.name} is not in {root}: held-out documents may have been trained on")
    return max(folders, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns)


def _rows(path: Path) -> int:
    if not path.is_file():
        return 0
    return int(open_parquet(path).metadata.num_rows)


@dataclass(frozen=True)
class Suite:
    """`documents`: (id, domain, text) of each, in their stable order."""

    name: str
    tasks: tuple[QuestionSet, ...]
    documents: tuple[tuple[str, str, str], ...]

    @cached_property
    def documents_digest(self) -> str:
        """Digest of the documents, ids and texts."""
        return digest(self.documents)


def build_suite(config: SuiteConfig, held_out: HeldOut | None, *, seed: int = 0) -> Suite:
    """Makes and reads what the settings ask for; prints what is skipped in files. Raises `StageError` by file."""
    documents = held_out.documents() if held_out is not None else []
    tasks = [make_task(name, documents, config.items, seed) for name in config.embedded]
    for name, path in config.files.items():
        task = read_task(name, path)
        for reason, count in task.skipped.items():
            say(f"{name}: {count} questions with {reason} are left out")
        tasks.append(task)
    chosen = _sample(documents, config.documents, seed) if config.likelihood else ()
    return Suite(config.name, tuple(tasks), tuple(chosen))


def _sample(documents: list["Document"], count: int, seed: int) -> list[tuple[str, str, str]]:
    """At most `count` of each domain, those of a small one all."""
    by_domain: dict[str, list[Document]] = {}
    for document in documents:
        by_domain.setdefault(document.domain, []).append(document)
    samples = []
    for domain, own in sorted(by_domain.items()):
        if len(own) > count:
            own = random.Random(f"{domain} {seed}").sample(own, count)
        samples += [(document.id, domain, document.text) for document in own if document.text.strip()]
    return samples


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
    chosen: Suite,
    *,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    folder: Path,
    outputs: Path | str = "outputs",
    force: bool = False,
) -> SuiteResults:
    """Computes what `folder`'s journal does not hold yet, or with `force` all.

    Killed at any moment, it resumes from the last batch."""
    path = folder / "journal.jsonl"
    if force:
        path.unlink(missing_ok=True)
    total = count_work(chosen.tasks, chosen.documents, suite, protocol)
    with progress("evaluating", total, unit="questions and documents") as advance:
        return _complete(model, tokenizer, chosen, suite, protocol, Journal(path), advance, outputs)


def _complete(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    chosen: Suite,
    suite: SuiteConfig,
    protocol: ProtocolConfig,
    journal: Journal,
    advance: Progress,
    outputs: Path | str,
) -> SuiteResults:
    tasks, documents = chosen.tasks, chosen.documents
    judge = None
    if suite.judge and any(task.template == FREE for task in tasks):
        judge = build_annotator(from_table(FeedbackConfig, suite.judge, "suite.judge"), outputs, [])
    batch_size_tokens = protocol.batch_size_tokens

    def likelihoods(batch: Documents) -> list[dict[str, Any]]:
        measured = measure(model, tokenizer, batch, stride=suite.stride, batch_size_tokens=batch_size_tokens)
        return [dataclasses.asdict(row) for row in measured]

    def answers(task: QuestionSet, shots: int) -> list[Result]:
        def answer(batch: Sequence[Question]) -> list[Result]:
            if task.template == FREE:
                return ask_freely(
                    model, tokenizer, batch, template_of(protocol, task), pool=task.questions, shots=shots,
                    suite=suite, judge=judge, seed=protocol.seed, batch_size_tokens=batch_size_tokens,
                )  # fmt: skip
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
    return protocol.question if task.template in (QUESTION, FREE) else protocol.completion


@dataclasses.dataclass(frozen=True)
class OrderLikelihood:
    """Log-likelihood of questions with their right answers, one after another: for the contamination test.

    What is longer than the model's context is read in windows of it that overlap by half, so that every order of a
    shard is of the same questions.
    """

    model: "LanguageModel"
    tokenizer: "Tokenizer"
    template: TemplateConfig
    batch_size_tokens: int = 8192

    def shards(self, questions: Sequence[Question]) -> int:
        """Into how many shards a test is best cut: such as fill the context, as many as `_LEAST_SHARDS` at least where
        there are questions enough, and of `_SHARD` questions at least."""
        tokens = sum(len(row) for row in self.tokenizer.encode_batch(list(map(self.text, questions))))
        count = max(_LEAST_SHARDS, -(-tokens // self.model.config.max_position_embeddings))
        return max(2, min(count, len(questions) // _SHARD))

    def many(self, orderings: Sequence[Sequence[Question]]) -> list[float]:
        """One number for each order, in nats."""
        texts = [("", self.template.separator.join(map(self.text, order))) for order in orderings]
        tokens = [[*context, *rest] for context, rest in split(self.tokenizer, texts)]
        totals = [0.0] * len(orderings)
        for number, row in score_windows(self.model, tokens, batch_size_tokens=self.batch_size_tokens):
            totals[number] += row.log_prob
        return totals

    def __call__(self, order: Sequence[Question]) -> float:
        return self.many([order])[0]

    def text(self, question: Question) -> str:
        """A question and its right answer, as a published file would hold them."""
        bare = dataclasses.replace(self.template, description="")
        return content_prompt(bare, question, ()) + filled(
            self.template.answer, option=question.options[question.answer]
        )
