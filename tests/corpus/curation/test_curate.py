import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maquette.corpus.config import CorpusConfig, CurationConfig, ExecutorConfig
from maquette.corpus.curation.curate import Curated, curate
from maquette.corpus.curation.curation_report import finish_journal, funnel, write_curation_report
from maquette.corpus.curation.journal import STEPS, explain, step_of
from maquette.corpus.curation.shards import store
from maquette.corpus.document import SPLITS, Document, read_documents
from maquette.corpus.pipeline import make_corpus
from maquette.corpus.synthetic_web.faults import CODE, TEX
from maquette.corpus.synthetic_web.pages import SyntheticPage, Text
from maquette.corpus.synthetic_web.web import _worth_citing, measure, read_truth
from maquette.corpus.workers import workers
from support.made_archives import PROSE
from support.made_crawl import run, settings

pytestmark = pytest.mark.slow(reason="curates a synthetic web, in processes")


@pytest.fixture(scope="module")
def corpus(curated: Curated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with workers(1) as pool:
        make_corpus(curated.documents(), CorpusConfig(), folder, pool)
    return folder


def test_every_record_is_in_the_journal_once_with_a_known_step(web: Path, curated: Curated) -> None:
    assert curated.selection is not None
    journal = curated.selection.journal
    assert sorted(journal["id"]) == sorted(row["id"] for row in read_truth(web))
    assert {step_of(reason) for reason in journal["reason"]} <= {"", *STEPS}


def test_injected_faults_are_found_and_good_pages_kept(web: Path, curated: Curated, corpus: Path) -> None:
    assert curated.selection is not None
    result = measure(finish_journal(curated.selection.journal, corpus), read_truth(web), curated.documents())
    for row in result:  # few are injected of each: the report of a larger web has finer figures
        least = 0.85 if row["kind"] == "good pages" else 0.5 if row["to be kept"] == "yes" else 0.75
        assert row["recall"] >= least or row["kind"] == "unsafe, other words", row
    precision = {row["kind"]: row["precision"] for row in result if row["precision"] is not None}
    assert precision["good pages"] > 0.97
    for kind in (
        "exact copy",
        "same address",
        "blocked host",
        "giant page",
        "broken record",
        "personal data, replaced",
    ):
        assert precision[kind] > 0.9, kind


def test_code_and_formulas_come_through(web: Path, curated: Curated) -> None:
    names = {row["id"] for row in read_truth(web) if row["fault"] == "code and formulas"}
    texts = [document.text for document in curated.documents() if document.id in names]
    assert texts
    for text in texts:
        assert CODE in text
        assert f"${TEX}$" in text


def test_an_encyclopaedia_cites_what_tells_of_a_subject_as_a_whole() -> None:
    kinds = ["docs"] * 40 + ["reference", "readme", "legal", "code"] * 2
    pages = [
        SyntheticPage(0.0, f"http://a.example/{n}", b"x" * (n + 1), text=Text(f"{kind} {n}", (), kind))
        for n, kind in enumerate(kinds)
    ]
    cited = _worth_citing(pages, 10, random.Random(0))
    assert len(cited) == 10 and len({page.url for page in cited}) == 10
    domains = [page.text.domain for page in cited if page.text is not None]
    assert sorted(domains)[-6:] == ["legal", "legal", "readme", "readme", "reference", "reference"]
    assert all(len(page.body) > 30 for page in cited)  # of the others those that tell most
    assert len(_worth_citing(pages, 4, random.Random(0))) == 4


def test_nothing_that_goes_has_its_only_original_cut_short(web: Path) -> None:
    truth = {row["id"]: row for row in read_truth(web)}
    cut = [row for row in truth.values() if row["fault"] == "broken record" and row["id"].startswith("crawl-00")]
    last = max(cut, key=lambda row: int(row["id"].rpartition(":")[2]))
    path = last["url"].partition("example/")[2]
    assert not [row for row in truth.values() if row["fault"] == "mirrored host" and row["url"].endswith(f"/{path}")]
    assert not [row for row in truth.values() if row["url"] != last["url"] and row["url"].startswith(last["url"] + "/")]


def test_copies_lie_in_one_cluster_that_keeps_its_size(web: Path, curated: Curated) -> None:
    assert curated.selection is not None
    journal = curated.selection.journal
    later = journal[journal["reason"].str.startswith("near duplicate")]
    assert (later["cluster"] != later["id"]).all()
    assert (later["cluster_size"] >= 2).all()
    sizes = {document.id: document.meta.get("cluster_size") for document in curated.documents()}
    for first, size in zip(later["cluster"], later["cluster_size"], strict=True):
        assert sizes[first] == size


def test_the_number_of_processes_does_not_matter(web: Path, curated: Curated, tmp_path: Path) -> None:
    again = run(web, tmp_path / "two", processes=3)
    assert list(again.documents()) == list(curated.documents())
    assert again.selection is not None and curated.selection is not None
    assert again.selection.journal.equals(curated.selection.journal)


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.made_crawl import run
run(Path({web!r}), Path({root!r}))
"""


def test_killed_in_mid_run_it_goes_on_to_the_same_bytes(web: Path, curated: Curated, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    text = PROGRAM.format(tests=str(Path(__file__).parents[2]), web=str(web), root=str(root))
    process = subprocess.Popen([sys.executable, "-c", text], start_new_session=True, stderr=subprocess.DEVNULL)
    while not list((root / "extract").glob("0000[1-9].parquet")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (root / "statistics" / "report.json").exists()
    again = run(web, root)
    assert list(again.documents()) == list(curated.documents())
    for path in sorted((curated.job.root / "filter").glob("*.parquet")):
        assert (root / "filter" / path.name).read_bytes() == path.read_bytes()


def test_evidence_is_written_and_explained(web: Path, curated: Curated, corpus: Path) -> None:
    assert curated.selection is not None
    journal = finish_journal(curated.selection.journal, corpus)
    stages = funnel(journal)
    assert stages[0]["documents"] == len(journal)
    written = {document.id.partition("#")[0] for split in SPLITS for document in read_documents(corpus, split)}
    assert stages[-1]["documents"] == len(written)
    report = write_curation_report(corpus, journal, settings(web), curated.facts, None)
    assert report["funnel"][-1]["documents"] == len(written)
    page = (corpus / "curation.html").read_text()
    for text in ("Funnel", "near duplicate", "gopher: "):
        assert text in page
    assert "<script" not in page
    rejected = journal[journal["reason"] == "answer: not 200"].iloc[0]
    assert "rejected     at the step 'answer'" in explain(corpus, rejected["id"], settings(web))
    one = journal[journal["reason"] == ""].iloc[0]
    story = explain(corpus, one["url"], settings(web))
    assert "passed       gopher: min_words" in story
    assert f"kept         {one['kept_characters']:,} characters" in story


def test_documents_of_any_source_can_be_curated(tmp_path: Path) -> None:
    documents = [
        Document("good", PROSE, "http://a.example/1"),
        Document("blocked", PROSE, "http://lucky-casino.example/1"),
        Document("again", PROSE, "http://www.a.example/1#x"),
        Document("short", "The end of that.", "http://a.example/2"),
    ]
    shards = store(documents, tmp_path / "work" / "source")
    result = curate(
        shards, CurationConfig(), ExecutorConfig(), tmp_path / "work", enabled=True, processes=1, limit=None
    )
    assert [document.id for document in result.documents()] == ["good"]
    assert result.selection is not None
    reasons = dict(zip(result.selection.journal["id"], result.selection.journal["reason"], strict=True))
    assert reasons == {
        "good": "", "blocked": "url: gambling", "again": "url duplicate: seen earlier", "short": "gopher: min_words",
    }  # fmt: skip
