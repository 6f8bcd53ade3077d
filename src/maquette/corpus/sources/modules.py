"""What the `installed` source reads: a fixed list of packages, so that equal versions give an equal corpus, and of them
the Python files that are written by people and the same on every machine: no tests, no tables.
"""

import dataclasses
import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

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
