"""A suite: tasks made from held-out documents, tasks from files, and documents whose likelihood is measured."""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.evaluation.config import SuiteConfig
from maquette.evaluation.held_out import HeldOut
from maquette.evaluation.questions.embedded import make_task
from maquette.evaluation.questions.questions import QuestionSet
from maquette.evaluation.questions.readers import read_task

if TYPE_CHECKING:
    from maquette.corpus.document import Document


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


def objective_of(checkpoint: Path) -> str | None:
    """What a run trained for (pretrain, sft, dpo, ppo); None where it is not known."""
    import yaml

    for folder in (checkpoint, checkpoint.parent):
        path = folder / "config.yaml"
        if path.is_file():
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
            chosen = settings.get("objective") if isinstance(settings, dict) else None
            kind = chosen.get("kind") if isinstance(chosen, dict) else chosen
            return None if kind is None else str(kind)
    return None


def build_suite(config: SuiteConfig, held_out: HeldOut | None, *, seed: int = 0) -> Suite:
    """Makes and reads what the settings ask for; what is skipped in files is said. Raises `StageError` by file."""
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
    found = []
    for domain, own in sorted(by_domain.items()):
        if len(own) > count:
            own = random.Random(f"{domain} {seed}").sample(own, count)
        found += [(document.id, domain, document.text) for document in own if document.text.strip()]
    return found
