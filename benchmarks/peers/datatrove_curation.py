"""datatrove's pipeline for `curation_speed.py`: archive, output. Prints processor seconds and documents kept.

It runs in a Python that has datatrove 0.10 and imports nothing of this project.
"""

import gzip
import resource
import shutil
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.logging import logger
from datatrove.utils.word_tokenizers import load_word_tokenizer


def main(archive: str, out: str) -> None:
    logger.remove()
    shutil.rmtree(out, ignore_errors=True)
    config = MinhashConfig()
    list(load_word_tokenizer("eng").word_tokenize("Loaded before the clock starts."))
    before = _used()
    for number, pipeline in enumerate(
        (
            [
                WarcReader(archive, glob_pattern="*.warc.gz"), Trafilatura(favour_precision=True, timeout=5),
                GopherRepetitionFilter(), GopherQualityFilter(), JsonlWriter(f"{out}/filtered"),
            ],
            [JsonlReader(f"{out}/filtered"), MinhashDedupSignature(f"{out}/signatures", config=config)],
            [MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)],
            [MinhashDedupCluster(f"{out}/buckets", f"{out}/remove")],
            [JsonlReader(f"{out}/filtered"), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/kept")],
        )
    ):  # fmt: skip
        if number and not list(Path(out, "filtered").glob("*.jsonl.gz")):
            break  # its extractor or its filters left nothing
        tasks = config.num_buckets if number == 2 else 1
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{out}/logs/{number}").run()
    seconds = _used() - before
    count = sum(len(gzip.decompress(path.read_bytes()).splitlines()) for path in Path(out, "kept").glob("*.jsonl.gz"))
    print(seconds, count)


def _used() -> float:
    return sum(
        use.ru_utime + use.ru_stime
        for use in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
