"""Licences: what metadata says, what an expression allows, the filter and the data card."""

import email
import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.manifest import read_manifest
from maquette.corpus.build import CorpusSettings, build_corpus
from maquette.corpus.config import CorpusConfig, CurationConfig, ExecutorConfig, SourceConfig
from maquette.corpus.document import read_documents
from maquette.corpus.licenses import check_licenses, identifiers, is_allowed, license_class, package_license


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("License-Expression: Apache-2.0 OR BSD-2-Clause", "Apache-2.0 OR BSD-2-Clause"),
        ("License: MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
        ("License: Apache 2.0\nClassifier: License :: OSI Approved :: MIT License", "Apache-2.0"),
        ("License: Copyright 2018 Somebody, Inc. All rights\nClassifier: License :: OSI Approved :: BSD License",
         "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: BSD License\n"
         "Classifier: License :: OSI Approved :: Apache Software License", "BSD-3-Clause AND Apache-2.0"),
        ("License: Dual License", "unknown"),
        ("License: proprietary", "unknown"),
        ("Classifier: License :: OSI Approved", "unknown"),
        ("Name: x", "unknown"),
    ],
)  # fmt: skip
def test_a_packages_licence_is_read_from_its_metadata(header: str, expected: str) -> None:
    metadata: Any = email.message_from_string(f"Metadata-Version: 2.1\n{header}\n\nText")
    assert package_license(metadata) == expected


def test_of_or_one_is_enough_and_of_and_all_must_be() -> None:
    both = "(MIT OR GPL-3.0-only) AND Apache-2.0 WITH LLVM-exception"
    assert identifiers(both) == ["MIT", "GPL-3.0-only", "Apache-2.0"]
    assert license_class(both) == "permissive" and is_allowed(both, ["permissive"])
    assert is_allowed(both, ["MIT", "Apache-2.0"]) and not is_allowed(both, ["MIT"])
    assert license_class("MIT OR GPL-3.0-only AND MPL-2.0") == "permissive"  # AND binds closer
    assert license_class("MIT AND GPL-3.0-only") == "copyleft" and not is_allowed(
        "MIT AND GPL-3.0-only", ["permissive"]
    )
    assert license_class("LGPL-3.0-only") == "weak_copyleft" and is_allowed("LGPL-3.0-only", ["weak_copyleft"])
    assert license_class("MIT AND SomethingElse") == "unknown" and is_allowed("unknown", ["unknown"])
    assert not is_allowed("unknown", ["permissive"]) and not is_allowed("", ["permissive"])


def test_what_is_no_licence_is_refused_by_name() -> None:
    check_licenses(["permissive", "GPL-3.0-or-later"])
    with pytest.raises(ConfigError, match=r"(?s)corpus\.licenses=permisive .*Did you mean permissive"):
        check_licenses(["permisive"])


def corpus(folder: Path, **chosen: Any) -> CorpusSettings:
    source = SourceConfig(kind="jsonl", path=str(folder / "rows.jsonl"), license_field="licence")
    config = CorpusConfig(minimum_characters=1, validation=0, test=0, workers=1, **chosen)
    return CorpusSettings(source, config, CurationConfig(), ExecutorConfig(), folder / "outputs")


def test_the_filter_keeps_what_is_allowed_and_the_card_counts(tmp_path: Path) -> None:
    texts = ["MIT", "GPL-3.0-only", "MIT OR GPL-2.0-only", None]
    rows = [
        {"id": str(place), "text": f"Number {place} tells of {word}, and of {word * 3}.", "licence": texts[place % 4]}
        for place, word in enumerate(("rivers", "hills", "seas", "woods", "stones", "clouds", "fields", "towns"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = build_corpus(corpus(tmp_path), force=False)
    licenses = read_manifest(whole).facts["licenses"]
    assert {name: counts["documents"] for name, counts in licenses.items()} == {
        "MIT": 2, "GPL-3.0-only": 2, "MIT OR GPL-2.0-only": 2, "unknown": 2
    }  # fmt: skip
    free = build_corpus(corpus(tmp_path, licenses=["permissive"]), force=False)
    assert free != whole and [document.id for document in read_documents(free)] == ["0", "2", "4", "6"]
    card = (free / "data_card.md").read_text()
    assert "permissive: 100.0% of the bytes" in card and "left out, before anything else: GPL-3.0-only 2" in card
    assert "| unknown | 2 |" in (whole / "data_card.md").read_text()


def test_settings_at_their_defaults_leave_a_corpus_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "One text that stands alone, and long enough."}) + "\n")
    settings = corpus(tmp_path)
    settings.source.license_field = None
    manifest = read_manifest(build_corpus(settings, force=False))
    assert "license_field" not in manifest.config["source"] and "licenses" not in manifest.config["corpus"]
