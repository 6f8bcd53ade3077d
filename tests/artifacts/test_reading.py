import ast
import csv
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import maquette
from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.reading import (
    load_arrays,
    load_json,
    load_sealed,
    load_table,
    load_yaml,
    parse_json,
    reading,
    short,
    write_sealed,
)

HOSTILE = {
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "huge integer": b'{"a": ' + b"9" * 5_000 + b"}",
    "not UTF-8": "{}".encode("utf-16"),
    "cut": b'{"a": ',
    "empty": b"",
    "two": b"{} {}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(StageError) as caught:
        load_json(path, hint="Fetch it again.")
    assert str(path) in caught.value.message and "\n" not in caught.value.message
    assert len(caught.value.message) < 400 and caught.value.hint == "Fetch it again."


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert load_json(tmp_path / "a.json") == {}


def test_every_parser_stands_behind_the_door() -> None:
    """A call of a parser stands inside `with reading(...)`, or beside handlers of what it raises, or is listed."""
    source = Path(maquette.__file__).parent
    bare = [
        f"{path.relative_to(source)}:{line}: {call}"
        for path in sorted(source.rglob("*.py"))
        for line, call in _bare_parsers(ast.parse(path.read_text(encoding="utf-8")))
        if path.relative_to(source).as_posix() not in OUR_OWN_TEXT
    ]
    assert not bare, "\n".join(bare)


PARSERS = {
    "json.load", "json.loads", "np.load", "np.memmap", "np.fromfile", "np.loadtxt", "np.genfromtxt", "yaml.load",
    "yaml.safe_load", "OmegaConf.load", "pd.read_csv", "pd.read_parquet", "pd.read_json", "csv.reader",
    "csv.DictReader", "torch.load", "ParquetFile", "parquet.read_table", "read_metadata", "sqlite3.connect",
    "ipc.open_stream", "ipc.open_file", "Tokenizer.from_file", "tomllib.load", "pickle.load", "pickle.loads",
    "load_file", "safetensors.load", "ET.parse",
}  # fmt: skip

OUR_OWN_TEXT = {
    "artifacts/files.py",  # read_json gives None for whatever is damaged
    "artifacts/reading.py",
    "corpus/synthetic_web/pages.py",  # a file of the package
    "evaluation/question_files.py",  # `read_task` turns what its readers raise into a place and a row
    "recipe/run_spec.py", "scaling/predictions/prediction.py",  # what json.dumps has just written
    "text/tokenizer.py", "text/training.py",  # what tokenizers has just written
    "tracking/config.py",  # an environment variable that this process wrote
}  # fmt: skip


def _bare_parsers(tree: ast.Module) -> list[tuple[int, str]]:
    behind: set[int] = set()
    for node in ast.walk(tree):
        if (isinstance(node, ast.With) and any("reading(" in ast.unparse(item) for item in node.items)) or (
            isinstance(node, ast.Try | ast.With)
            and {"ValueError", "RecursionError"} <= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        ):
            behind |= {id(one) for one in ast.walk(node)}
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and id(one) not in behind]
    return [
        (call.lineno, ast.unparse(call)[:80])
        for call in calls
        if ".".join(ast.unparse(call.func).split(".")[-2:]) in PARSERS
    ]


@pytest.mark.parametrize(
    "text",
    ["a: &a {b: *a}", "[" * 5_000, "size: " + "9" * 5_000, "!!python/object/apply:os.system ['true']",
     "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))],
    ids=["itself", "deep", "digits", "code", "bomb"],
)  # fmt: skip
def test_hostile_yaml_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(StageError, match=r"mine\.yaml") as caught:
        load_yaml(tmp_path / "mine.yaml")
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    (tmp_path / "good.yaml").write_text("base: &base {a: 1}\none: *base\ntwo: {<<: *base, b: 2}\n")
    assert load_yaml(tmp_path / "good.yaml")["two"] == {"a": 1, "b": 2}


def test_a_line_is_named() -> None:
    with pytest.raises(StageError, match=r"rows\.jsonl, line 3 is not JSON"):
        parse_json("{", "rows.jsonl, line 3")


def test_what_must_be_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(StageError, match="must hold an object, got list"):
        load_table(tmp_path / "a.json")


@pytest.mark.parametrize(
    "error", [KeyError("bytes"), TypeError("int"), yaml.YAMLError("x"), pa.ArrowInvalid("a\nb"), csv.Error("x"),
              zlib.error("x"), RecursionError(), UnicodeDecodeError("utf-8", b"x", 0, 1, "y"), IndexError(),
              OverflowError("x"), pa.ArrowNotImplementedError("x"), PermissionError(13, "no"), FileNotFoundError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_parsers_raise_becomes_ours(error: Exception) -> None:
    with pytest.raises(StageError) as caught, reading("some.file"):
        raise error
    assert "some.file" in caught.value.message and "\n" not in caught.value.message
    assert "write" not in caught.value.message


@pytest.mark.parametrize("error", [ConfigError("x"), KeyboardInterrupt(), MemoryError()])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), reading("some.file"):
        raise error


@given(st.dictionaries(st.text(), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8,
)))  # fmt: skip
def test_a_sealed_file_gives_back_what_was_written(tmp_path_factory: Any, content: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "a.json"
    content.pop("checksum", None)
    try:
        write_sealed(path, content)
    except (UnicodeEncodeError, StageError):
        return
    assert json.dumps(load_sealed(path)) == json.dumps(json.loads(json.dumps(content)))


def test_a_sealed_file_shows_a_changed_value(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, {"loss": 2.5, "name": "run"})
    path.write_text(path.read_text().replace("2.5", "2.4"))
    with pytest.raises(StageError, match=r"a\.json is damaged: it does not match its checksum"):
        load_sealed(path)


def test_what_is_quoted_is_short() -> None:
    assert short("a\nb\ud800" + "x" * 1000).startswith("a b?xxx") and len(short("x" * 1000)) < 210


def test_an_archive_with_something_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("numbers.npy", b"not what NumPy writes")
    with pytest.raises(StageError, match=r"a\.npz.*numbers"):
        load_arrays(tmp_path / "a.npz")
