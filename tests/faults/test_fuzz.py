"""The quick half: some damaged copies of every format, and every case that was ever found."""

import base64
import json
from pathlib import Path

import pytest
from tests.faults.__main__ import CASES
from tests.faults.formats import FORMATS
from tests.faults.fuzz import FINDINGS, Format, _snapshot, attack, judge
from tests.faults.overrides import attack as compose_lines


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_damaged_files_are_refused_by_name_or_read(format: Format, tmp_path: Path) -> None:
    result = attack(format, tmp_path, seed=1, count=12)
    assert not result.findings, result.findings[0][:2]
    assert sum(result.outcomes.values()) > 6


def test_hostile_overrides_are_refused_in_a_line_or_compose() -> None:
    assert compose_lines(seed=3, count=15) == []


@pytest.mark.parametrize("case", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_mended(case: Path, tmp_path: Path) -> None:
    content = json.loads(case.read_text())
    format = next(format for format in FORMATS if format.name == content["format"])
    file = format.make(tmp_path)
    expected = _snapshot(format.read(file))
    file.write_bytes(base64.b64decode(content["content"]))
    outcome, detail = judge(format, file, expected)
    assert outcome not in FINDINGS, detail
