"""The `installed` source: code, docstrings, package descriptions, licences and Python's own reference.

Everything is read from a fixed list of packages and the files that they themselves list, in the order of their names:
those that are written by people and the same on every machine. No tests, tables, paths, compiled files, build
configurations or times, so equal versions give an equal corpus.
"""

import dataclasses
import importlib.metadata
import itertools
import math
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from maquette.artifacts.progress import progress, say
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.licenses import package_license
from maquette.corpus.sources.package_texts import description, licenses, part
from maquette.corpus.workers import Workers

PACKAGES = (
    "aiohttp", "alembic", "annotated-types", "antlr4-python3-runtime", "anyio", "attrs", "blinker", "cachetools",
    "cffi", "charset-normalizer", "click", "cloudpickle", "contourpy", "cryptography", "cycler", "docker",
    "fastapi", "filelock", "Flask", "flask-cors", "fonttools", "fsspec", "gitdb", "GitPython", "google-auth",
    "graphene", "graphql-core", "graphql-relay", "h11", "huey", "huggingface_hub", "hydra-core", "idna",
    "itsdangerous", "Jinja2", "joblib", "kiwisolver", "lightning", "lightning-utilities", "Mako", "markdown-it-py",
    "MarkupSafe", "matplotlib", "mlflow", "mpmath", "multidict", "narwhals", "networkx", "numpy", "omegaconf",
    "opentelemetry-api", "opentelemetry-sdk", "packaging", "pandas", "pillow", "prettytable", "pyarrow", "pyasn1",
    "pycparser", "pydantic", "Pygments", "pyparsing", "python-dateutil", "python-dotenv", "PyYAML", "requests",
    "rich", "safetensors", "scikit-learn", "scipy", "setuptools", "six", "skops", "smmap", "SQLAlchemy", "sqlparse",
    "starlette", "sympy", "threadpoolctl", "tokenizers", "torch", "torchmetrics", "tqdm", "typing_extensions",
    "urllib3", "uvicorn", "Werkzeug", "yarl",
)  # fmt: skip
"""All of them come with the default installation (the dependencies in pyproject.toml and what those bring along), on
every platform and Python version. Left out: second copies (pytorch-lightning, mlflow-skinny), and packages whose source
is generated from tables or interface definitions (databricks-sdk, opentelemetry-proto, protobuf, wcwidth)."""

_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__", "_tests", "_testing", "conftest", "test", "testing", "tests",
        "_vendor", "_vendored", "extern", "externals", "third_party", "thirdparty", "vendor", "vendored",
        "bin", "site-packages", "dist-packages",
    }
)  # fmt: skip
_SKIPPED_NAMES = re.compile(
    r"test_.*|.*_test|.*_tests|tests?|conftest"  # tests
    r"|__config__|_sysconfigdata.*|__about__"  # what a build writes about itself
    r"|.*_pb2|.*_pb2_grpc"  # compiled interface definitions
)
# Parts of the standard library that distributions ship apart, and what is data or there twice.
_SKIPPED_STANDARD = frozenset(
    {
        "_pyrepl", "config", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test",
        "this", "tkinter", "turtle", "turtledemo", "venv", "__phello__",
    }
)  # fmt: skip
_GENERATED = re.compile(
    rb"(?im)^#.*(auto-?\s?generated|automatically generated|generated (by|from|with)|do not (edit|modify))"
)
_SHORT_VERSION = 2000  # bytes
_DATA_LINE = re.compile(rb"(?m)^[ \t]*(?:[-+\"'0-9(\[{]|b'|b\"|u'|u\"|r'|r\"|0x)[^\n]*[,\])}:][ \t]*(?:#[^\n]*)?$")


@dataclasses.dataclass(frozen=True, slots=True)
class SourceModule:
    """A file to read. `name` is dotted; `group` (package and its first level) stays in one split."""

    name: str
    group: str
    package: str
    path: str


def distribution_modules(distribution: importlib.metadata.Distribution) -> Iterator[SourceModule]:
    """The modules that an installed distribution lists as its own, in the order of their names."""
    package = normal_name(distribution.metadata["Name"])
    files = [file for file in distribution.files or [] if file.suffix == ".py"]
    for file in sorted(files, key=lambda file: file.as_posix()):
        relative = PurePosixPath(file.as_posix())
        if _is_read(relative):
            name = module_name(relative)
            yield SourceModule(name, group_of(relative), package, str(distribution.locate_file(file)))


def standard_modules() -> Iterator[SourceModule]:
    """The modules of the standard library that every installation of this Python has, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    modules: list[Path] = []
    for top in sys.stdlib_module_names - _SKIPPED_STANDARD:
        modules += [root / f"{top}.py"] if (root / f"{top}.py").is_file() else (root / top).rglob("*.py")
    for relative in sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in modules):
        if _is_read(relative):
            top = relative.parts[0].removesuffix(".py")
            yield SourceModule(module_name(relative), f"python.{top}", "python", str(root / relative))


def is_written_by_people(source: bytes, name: str = "") -> bool:
    """False for generated files, tables and minified code, judged by the first lines and the shape of the rest.

    A line is of a table when it starts with a literal or a bracket and ends with a comma or a bracket. Of the modules
    called `version` the short ones are written by the build.
    """
    if not source.strip() or (name.rpartition(".")[2] in ("version", "_version") and len(source) < _SHORT_VERSION):
        return False
    head = b"\n".join(source[:4096].splitlines()[:12])
    if _GENERATED.search(head):
        return False
    lines = source.count(b"\n") - source.count(b"\n\n") + 1
    if len(source) > 200 * lines:
        return False
    return lines < 40 or len(_DATA_LINE.findall(source)) < 0.5 * lines


def module_name(path: PurePosixPath) -> str:
    """`torch/nn/__init__.py` -> `torch.nn`."""
    parts = [*path.parts[:-1], path.stem]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def group_of(path: PurePosixPath) -> str:
    """The package and its first level: `torch/nn/modules/linear.py` -> `torch.nn`, `torch/hub.py` -> `torch`."""
    return ".".join(path.parts[:-1][:2]) or path.stem


def normal_name(name: str) -> str:
    """A distribution's name as indexes compare it: `PyYAML` -> `pyyaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_read(path: PurePosixPath) -> bool:
    folders: Iterable[str] = path.parts[:-1]
    return (
        ".." not in path.parts
        and not path.is_absolute()
        and not any(part in _SKIPPED_FOLDERS or part.endswith((".dist-info", ".data")) for part in folders)
        and not _SKIPPED_NAMES.fullmatch(path.stem)
    )


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

    def licenses(self) -> dict[str, str]:
        """Each package's licence, by its name as documents have it; that of Python's own modules is their own."""
        own = {name: package_license(distribution.metadata) for name, distribution in self._distributions.items()}
        return own | {"python": "PSF-2.0"}

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
