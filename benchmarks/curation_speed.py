r"""From a crawl archive to deduplicated text with all rule filters, beside datatrove, on one core, in turn.

    python benchmarks/curation_speed.py --pages /usr/share/doc/python3.11/html    # any folder with HTML files
    python -m venv ~/venv-datatrove && ~/venv-datatrove/bin/pip install 'datatrove[processing]==0.10.1' spacy \
        faust-cchardet python-magic warcio fasteners
    python benchmarks/curation_speed.py --pages ~/html --datatrove ~/venv-datatrove/bin/python

Without `--pages` the pages are the good ones of the synthetic web. They are written to one .warc.gz, in a random order.
Ours reads it, extracts, judges address and language, takes out repeated lines, applies the rules of Gopher, C4 and
FineWeb, replaces private data, scores quality and finds near-duplicates. datatrove's pipeline is its reader, its
extractor, both of Gopher's filters and its MinHash stages; it runs in the Python that `--datatrove` names (its
requirements clash with this project's) or, without it, here if it is installed. It is given the first `--peer-pages`
pages of the archive, ours the whole. Times are of processor seconds of all processes, but for two processes beside
one, where the clock counts. Ratios are medians over rounds. Aims: 120 pages/s, ten times datatrove, 1.7.
"""

import argparse
import gzip
import importlib.util
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maquette.corpus.config import CurationConfig, ExecutorConfig, SourceConfig
from maquette.corpus.curation.curate import curate
from maquette.corpus.near_duplicates import clusters
from maquette.corpus.sources.warc import Warc

PEER = Path(__file__).parent / "peers" / "datatrove_curation.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="folder with .html files; by default the synthetic web's good pages")
    parser.add_argument("--most", type=int, default=1500, help="pages at most")
    parser.add_argument("--peer-pages", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datatrove", help="a Python that has datatrove 0.10, trafilatura, warcio and spacy")
    parser.add_argument("--documents", type=int, default=1_000_000, help="of which deduplication's memory is measured")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = list(_pages(arguments.pages, folder))[: arguments.most]
        _write(folder / "whole" / "crawl.warc.gz", pages)
        for part in range(2):  # the same pages, in two files: work for two processes
            _write(folder / "halves" / f"crawl-{part}.warc.gz", pages[part::2])
        _write(folder / "peer" / "crawl.warc.gz", pages[: arguments.peer_pages])
        size = statistics.median(len(body) for body in pages)
        print(f"{len(pages):,} pages, {size / 1000:.0f} kB of HTML in the median")
        _beside_datatrove(folder, len(pages), min(arguments.peer_pages, len(pages)), arguments, cores[0])
        os.sched_setaffinity(0, cores)
        if len(cores) > 1:
            ratios = []
            for _ in range(arguments.rounds):
                one, two = (_ours(folder / "halves", folder / "work", processes)[1] for processes in (1, 2))
                ratios.append(one / two)
            print(f"two processes against one, by the clock: {_spread(ratios)}")
            print(f"by processor time, as two idle cores would have it: {_by_processor_time(folder):.2f}")
    _memory(arguments.documents)


def _pages(given: Path | None, folder: Path) -> Iterator[bytes]:
    if given is None:
        from maquette.corpus.sources.records import archive_parts
        from maquette.corpus.sources.warc import WebPage, read_page
        from maquette.corpus.synthetic_web.web import make_web, read_truth
        from maquette.corpus.workers import workers

        web = folder / "web"
        web.mkdir()
        with workers() as pool:
            make_web(web, pool)
        good = {row["id"] for row in read_truth(web) if row["fault"] == ""}
        for path in sorted(web.glob("*.warc*")):
            for piece in archive_parts(path):
                page = read_page(piece, path.name, 1 << 21)
                if isinstance(page, WebPage) and page.id in good:
                    yield page.body
        return
    paths = sorted(path for path in given.expanduser().rglob("*.htm*") if path.is_file())
    if not paths:
        sys.exit(f"{given} has no .html files.")
    random.Random(0).shuffle(paths)
    for path in paths:
        body = path.read_bytes()
        if 2000 < len(body) < 2_000_000:  # no frames, no redirections; what both read
            yield body


def _write(path: Path, pages: list[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for number, body in enumerate(pages):
            content = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
            head = (
                f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
                f"WARC-Target-URI: http://host-{number % 40}.example/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            file.write(gzip.compress(head.encode() + content + b"\r\n\r\n", 6, mtime=0))


def _ours(archive: Path, work: Path, processes: int) -> tuple[float, float, int]:
    """Processor seconds, seconds by the clock, pages kept."""
    shutil.rmtree(work, ignore_errors=True)
    before, began = _used(), time.perf_counter()
    shards = Warc(SourceConfig(kind="warc", path=str(archive))).shards()
    curated = curate(shards, CurationConfig(), ExecutorConfig(), work, enabled=True, processes=processes, limit=None)
    count = sum(1 for _ in curated.documents())
    return _used() - before, time.perf_counter() - began, count


def _by_processor_time(folder: Path) -> float:
    """One process's time over two's, if the parent's seconds are not shared and its children's are: what other work on
    the machine does not change."""
    before = [_seconds(resource.RUSAGE_SELF), _seconds(resource.RUSAGE_CHILDREN)]
    _ours(folder / "halves", folder / "work", 2)
    alone = _seconds(resource.RUSAGE_SELF) - before[0]
    shared = _seconds(resource.RUSAGE_CHILDREN) - before[1]
    return (alone + shared) / (alone + shared / 2)


def _seconds(who: int) -> float:
    use = resource.getrusage(who)
    return use.ru_utime + use.ru_stime


def _used() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return _seconds(resource.RUSAGE_SELF) + _seconds(resource.RUSAGE_CHILDREN)


def _beside_datatrove(folder: Path, pages: int, peer_pages: int, arguments: argparse.Namespace, core: int) -> None:
    os.sched_setaffinity(0, {core})
    whole = all(importlib.util.find_spec(name) for name in ("datatrove", "spacy", "warcio", "magic"))
    python = arguments.datatrove or (sys.executable if whole else None)
    ours, theirs, count, summary = [], [], 0, ""
    for _ in range(arguments.rounds):
        seconds, _, count = _ours(folder / "whole", folder / "work", 1)
        ours.append(pages / seconds)
        if python is not None:
            out = subprocess.run(
                [python, str(PEER), str(folder / "peer"), str(folder / "datatrove")], capture_output=True, text=True
            )
            if out.returncode:
                sys.exit(f"datatrove failed:\n{out.stderr[-2000:]}")
            seconds, summary = float(out.stdout.split()[-2]), out.stdout.split()[-1]
            theirs.append(peer_pages / seconds)
    print(f"maquette   {statistics.median(ours):8.1f} pages/s, {count:,} kept")
    if theirs:
        print(f"datatrove  {statistics.median(theirs):8.1f} pages/s, {summary} of {peer_pages} kept")
        print(f"ratio      {_spread([mine / other for mine, other in zip(ours, theirs, strict=True)])}")
    else:
        print("datatrove or what its reader needs is not installed: name a Python that has it with --datatrove")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"


def _memory(documents: int) -> None:
    """What clustering holds beside the hashes themselves, by the operating system's account of the peak."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        numbers = np.random.default_rng(0)
        bands = numbers.integers(1, 1 << 60, (documents, CurationConfig().near_duplicates.bands), np.uint64)
        copies = numbers.integers(0, documents, documents // 10)
        bands[copies] = bands[numbers.integers(0, documents, copies.size)]
        base = _peak()
        began = time.perf_counter()
        clusters(bands)
        seconds = time.perf_counter() - began
        os.write(write, f"{bands.nbytes} {_peak() - base} {seconds}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    hashes, more, seconds = map(float, os.read(read, 100).split())
    million = documents / 1e6
    print(
        f"deduplication of {documents:,} documents: {hashes / million / 1e6:.0f} MB of band hashes and "
        f"{more / million / 1e6:.0f} MB of work per million, {seconds:.1f} s"
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
