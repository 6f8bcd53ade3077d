"""The tokenizer report: measures worked by hand, and everything it promises is in the folder."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from maquette.text import Tokenizer, report_figures, write_report
from maquette.text.config import TokenizerConfig
from maquette.text.measure import fit, number_splits, pieces, together, visible
from maquette.text.report import EXAMPLES, sweep


def test_fit_by_hand(trained: dict[tuple[str, str], Tokenizer]) -> None:
    tokenizer = trained["byte", "gpt4"]
    advanced: list[float] = []
    measured = fit(tokenizer, ["né", "", "nn"], advanced.append)
    assert (measured.bytes, measured.characters, measured.tokens, measured.used) == (5, 4, 5, 3)
    assert measured.bytes_per_token == 1 and measured.characters_per_token == 4 / 5
    assert measured.tokens_per_kilobyte == 1000
    assert measured.counts[16 + ord("n")] == 3
    assert sum(advanced) == 5


def test_together_adds_up(bpe: Tokenizer, texts: list[str]) -> None:
    fits = {str(place): fit(bpe, [text]) for place, text in enumerate(texts)}
    whole, parts = fit(bpe, texts), together(fits)
    assert (parts.bytes, parts.characters, parts.tokens) == (whole.bytes, whole.characters, whole.tokens)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    with pytest.raises(ValueError, match="no domain"):
        together({})


def test_fit_of_nothing(bpe: Tokenizer) -> None:
    nothing = fit(bpe, [])
    assert (nothing.tokens, nothing.bytes_per_token, nothing.used) == (0, 0, 0)


def test_visible_signs() -> None:
    assert visible(b" a\n\tb\r\x00\x7f") == "·a⏎⇥b␍␀␡"
    assert visible("ภ".encode()[:2]) == "⟨E0 B8⟩"
    assert visible("\u200d\u00a0".encode()) == "⟨U+200D⟩⟨U+00A0⟩"


def test_pieces_are_the_text(tokenizer: Tokenizer) -> None:
    assert "".join(pieces(tokenizer, "if x:\n    y")) == "if·x:⏎····y"


def test_number_splits(bpe: Tokenizer, trained: dict[tuple[str, str], Tokenizer]) -> None:
    assert number_splits(trained["byte", "gpt4"], 3) == {3: 1.0}
    assert number_splits(bpe, 1) == {1: 1.0}
    shares = number_splits(bpe, 3)
    assert sum(shares.values()) == pytest.approx(1) and max(shares) <= 3


def test_sweep_grows_and_shortens(texts: list[str]) -> None:
    points = sweep(TokenizerConfig(vocab_size=400), texts * 3, {"all": texts, "one": texts[:1]})
    assert points[0]["vocabulary"] == 272
    assert points[0]["domains"] == pytest.approx({"all": 1000, "one": 1000})
    assert [point["vocabulary"] for point in points] == sorted({point["vocabulary"] for point in points})
    assert len(points) >= 2
    lengths = [point["tokens_per_kilobyte"] for point in points]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 600


def test_report_folder(bpe: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    config = TokenizerConfig(vocab_size=400)
    held_out = {"prose": iter(texts[:1]), "code": iter(texts[1:2]), "scripts": iter(texts[2:]), "empty": iter([])}
    facts = write_report(tmp_path, bpe, config, texts, held_out)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert facts.items() <= saved.items()
    assert list(facts["domains"]) == ["code", "prose", "scripts"]
    for name, text in zip(("prose", "code", "scripts"), texts, strict=True):
        domain = facts["domains"][name]
        assert domain["tokens"] == len(bpe.encode(text)) and domain["bytes"] == len(text.encode())
        assert domain["bytes_per_token"] == pytest.approx(domain["bytes"] / domain["tokens"])
        assert 0 < domain["vocabulary_used"] <= facts["vocabulary_used"] <= 1
    assert facts["domains"]["scripts"]["characters_per_token"] < facts["domains"]["scripts"]["bytes_per_token"]
    assert saved["splits"].keys() == EXAMPLES.keys() and saved["measured_on"] == "validation"

    page = (tmp_path / "report.md").read_text()
    linked = re.findall(r"\]\((figures/\w+\.png)\)", page)
    assert len(linked) == 4
    for figure in linked:
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / figure).with_suffix(".svg").read_text()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert any(line.startswith("| scripts |") for line in tables)
    assert "`\\|`" in page  # a bar inside a cell is escaped, so each row has its cells
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {8, 6, 4}


def test_report_on_bytes_has_no_sweep(
    trained: dict[tuple[str, str], Tokenizer], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(report_figures, "save_figure", lambda figure, path: drawn.append(path.name))
    write_report(tmp_path, trained["byte", "gpt4"], TokenizerConfig(kind="byte"), texts, {"all": texts}, "train")
    page = (tmp_path / "report.md").read_text()
    assert "Other vocabulary sizes" not in page and "Measured on train text" in page
    assert drawn == ["compression", "vocabulary_use", "splits"]
