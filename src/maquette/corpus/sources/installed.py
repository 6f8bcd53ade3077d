"""The `installed` source: code, docstrings, package descriptions, licences and Python's own reference.

Everything is read from files that the packages themselves list, in the order of their names. Nothing that differs
between machines with the same versions gets in: no paths, compiled files, build configurations or times.
"""

import dataclasses
import importlib.metadata
import itertools
import math
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.progress import progress, say
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.modules import (
    PACKAGES,
    SourceModule,
    distribution_modules,
    is_written_by_people,
    normal_name,
    standard_modules,
)
from maquette.corpus.sources.package_texts import description, licenses, part
from maquette.corpus.workers import Workers

_MODULES_A_TASK = 24
_SHOWN = 4  # changed packages that a message names


class Installed:
    """Small domains come first, so that of text that stands in several the small one keeps it."""

    label = "installed"

    def __init__(
        self, config: SourceConfig, packages: Sequence[str] = PACKAGES, *, standard_library: bool = True
    ) -> None:
        self._config = config
        self._standard_library = standard_library
        self._distributions: dict[str, importlib.metadata.Distribution] = {}
        self._missing: list[str] = []
        for name in sorted(packages, key=normal_name):
            try:
                self._distributions[normal_name(name)] = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                self._missing.append(normal_name(name))
        self._modules = self._generated = self._unreadable = 0

    def inputs(self) -> dict[str, str]:
        """None: the first reading is frozen, and a later upgrade of packages changes nothing until `force=true`."""
        return {}

    def changes(self, known: dict[str, Any]) -> str:
        """How what would be read now differs from what was, by the `facts` of then; empty where it is the same."""
        now = self.facts()
        before, after = (
            {"python": facts["python"], **facts["packages"], **dict.fromkeys(facts["missing"], "missing")}
            for facts in (known, now)
        )
        differing = [
            f"{name} {before.get(name, 'not read')}, now {after.get(name, 'not read')}"
            for name in sorted(before | after)
            if before.get(name) != after.get(name)
        ]
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        return "; ".join(differing[:_SHOWN]) + more

    def documents(self, workers: Workers) -> Iterator[Document]:
        self._modules = self._generated = self._unreadable = 0
        if self._missing:
            say(f"source=installed: not installed, so not read: {', '.join(self._missing)}")
        return itertools.islice(self._documents(workers), self._config.limit)

    def facts(self) -> dict[str, Any]:
        # Without the local part (2.13.0+cpu): builds of one version differ in what is not read.
        versions = {name: distribution.version.partition("+")[0] for name, distribution in self._distributions.items()}
        return {
            "kind": "installed",
            "python": platform.python_version(),
            "packages": versions,
            "missing": self._missing,
            "modules": self._modules,
            "generated_or_tables": self._generated,
            "unreadable": self._unreadable,
        }

    def _documents(self, workers: Workers) -> Iterator[Document]:
        yield from self._reference()
        for name, distribution in self._distributions.items():
            yield from licenses(name, distribution)
        for name, distribution in self._distributions.items():
            yield from description(name, distribution)
        modules = [module for package in self._distributions.values() for module in distribution_modules(package)]
        if self._standard_library:
            modules.extend(standard_modules())
        if self._config.limit is not None:
            # Two documents a module: as many modules as the limit has room for, from all packages alike.
            modules = modules[:: max(1, math.ceil(2 * len(modules) / self._config.limit))]
        tasks = [modules[first : first + _MODULES_A_TASK] for first in range(0, len(modules), _MODULES_A_TASK)]
        with progress("reading installed packages", len(modules), unit="modules") as advance:
            for task, result in zip(tasks, workers.map(_read_modules, tasks), strict=True):
                advance(len(task))
                self._modules += len(task)
                self._generated += result.generated
                self._unreadable += result.unreadable
                yield from result.documents

    def _reference(self) -> Iterator[Document]:
        if not self._standard_library:
            return
        try:
            from pydoc_data.topics import topics
        except ImportError:  # some distributions of Python leave it out
            return
        for name in sorted(topics):
            yield Document(
                f"python/topics/{name}", topics[name], None, "reference", {"group": name, "package": "python"}
            )


@dataclasses.dataclass(frozen=True, slots=True)
class _ModuleTexts:
    documents: list[Document]
    generated: int
    unreadable: int


def _read_modules(modules: list[SourceModule]) -> _ModuleTexts:
    """The code and the docstrings of each module that people wrote."""
    documents: list[Document] = []
    generated = unreadable = 0
    for module in modules:
        try:
            source = Path(module.path).read_bytes()
            if not is_written_by_people(source, module.name):
                generated += 1
                continue
            text = part(source, module.name)
        except (OSError, SyntaxError, ValueError, RecursionError):
            unreadable += 1  # not of this version of Python, or not there: `facts` counts them
            continue
        meta = {"group": module.group, "package": module.package}
        docs = "\n\n".join(f"{name}\n{docstring}" for name, docstring in text.docs)
        documents.append(Document(f"{module.name}/code", text.code, None, "code", meta))
        documents.append(Document(f"{module.name}/docs", docs, None, "docs", meta))
    return _ModuleTexts(documents, generated, unreadable)
