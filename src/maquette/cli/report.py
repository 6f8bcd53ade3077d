"""`maquette report`: one page that links all pages of an outputs folder, with what each says."""

import dataclasses
import json
from pathlib import Path

from maquette.artifacts.files import listed
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import read_runs
from maquette.cli.command_line.config import ReportStage
from maquette.cli.sweeps.work import Files
from maquette.corpus.report import write_corpus_page
from maquette.reports.overview import ListedPage, find_pages, tell_overview, write_overview
from maquette.text.report import write_tokenizer_page
from maquette.training.record import record_of
from maquette.training.runs_page import write_runs_page, write_sweep_page


def run(config: ReportStage) -> list[ListedPage]:
    """Writes the pages of corpora, tokenizers, runs and sweeps, and `<outputs>/index.html` with links to all pages;
    returns these, newest first."""
    outputs = Path(config.outputs)
    records = [record_of(content, folder) for folder, content in read_runs(outputs).items()]
    if records:
        write_runs_page(outputs / "runs", records, force=config.force)
    for kind, write in (("corpus", write_corpus_page), ("tokenizer", write_tokenizer_page)):
        for folder in listed(outputs / "artifacts" / kind):
            write(folder, force=config.force)
    for folder in listed(outputs / "sweeps"):
        write_sweep_page(folder, Files(folder).outcomes(), records, force=config.force)
    pages = find_pages(outputs)
    if config.json:
        print(json.dumps([dataclasses.asdict(page) for page in pages], indent=2, default=str, ensure_ascii=False))
    elif not pages:
        say(f"There is no page in {outputs} yet. Begin with maquette demo, or maquette train and maquette evaluate.")
        return pages
    page = write_overview(outputs, pages) if pages else outputs
    if not config.json:
        tell_overview(page, pages)
    return pages
