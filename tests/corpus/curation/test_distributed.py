import os
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import StageError
from maquette.corpus.config import CurationConfig, ExecutorConfig, SourceConfig
from maquette.corpus.curation import datatrove_pipelines
from maquette.corpus.curation.curate import Curated, curate
from maquette.corpus.near_duplicates import clusters
from maquette.corpus.sources.warc import Warc
from support.made_archives import archive
from support.made_crawl import settings

pytest.importorskip("datatrove")


def run(web: Path, root: Path, executor: ExecutorConfig, config: CurationConfig) -> Curated:
    shards = Warc(SourceConfig(kind="warc", path=str(web))).shards()
    return curate(shards, config, executor, root, enabled=True, processes=1, limit=None)


@pytest.mark.slow(reason="curates a synthetic web with datatrove")
def test_datatrove_keeps_the_same_documents(web: Path, curated: Curated, tmp_path: Path) -> None:
    executor = ExecutorConfig(kind="datatrove", seconds_per_page=1.0, near_duplicates="disk")
    again = run(web, tmp_path / "work", executor, settings(web))
    assert list(again.documents()) == list(curated.documents())
    assert again.selection is not None and curated.selection is not None
    assert again.selection.journal.equals(curated.selection.journal)
    # A restart does nothing that is done: what a finished shard left is not touched.
    refined = sorted((tmp_path / "work" / "filter").glob("*.parquet"))
    lost = refined[-1].name.partition(".")[0]
    before = {path: path.stat().st_mtime_ns for path in refined if not path.name.startswith(lost)}
    for path in (tmp_path / "work" / "filter").glob(f"{lost}.*"):
        path.unlink()
    (tmp_path / "work" / "datatrove" / "filter" / "completions" / lost).unlink()
    assert list(run(web, tmp_path / "work", executor, settings(web)).documents()) == list(curated.documents())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_near_duplicates_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    bands = numbers.integers(1, 1 << 60, (60, 3), np.uint64)
    bands[7] = bands[50]
    bands[20, 1], bands[50, 2] = bands[3, 1], bands[20, 2]  # a chain through several shards
    bands[30] = bands[31] = 0  # too short for a shingle
    for number, part in {0: bands[:25], 2: bands[25:25], 5: bands[25:]}.items():
        np.savez(tmp_path / f"{number:05d}.npz", bands=part)
    result = datatrove_pipelines.clusters_on_disk(tmp_path, [0, 2, 5], tmp_path / "near_duplicates", 3, processes=1)
    assert result.tolist() == clusters(bands).tolist()
    assert result[50] == 3 and result[31] == 31
    assert not (tmp_path / "near_duplicates").exists()


SBATCH = """#!/bin/bash
# Runs a job array at once, as Slurm would, one task after the other.
for last; do :; done
grep -q merge_stats "$last" || cp "$last" "$0.$(grep -o 'maquette-[a-z]*' "$last" | head -1).sh"
echo "$@" >> "$0.arguments"
count=$(grep -c . "$0.arguments")
tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$last")
grep -q merge_stats "$last" && tasks=-1
for task in $(seq 0 $tasks); do
  SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here RUN_OFFSET=0 bash "$last" >> "$0.log" 2>&1
done
echo "Submitted batch job $((16 + count))"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm of one machine: sbatch runs what it is given."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH,
        "srun": '#!/bin/bash\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\n"$@"\n',
        "squeue": "#!/bin/bash\n",
        "scontrol": "#!/bin/bash\necho here\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(datatrove_pipelines, "_POLL", 0.01)
    return folder


@pytest.mark.slow(reason="job arrays of processes in place of Slurm's")
def test_slurm_job_arrays_keep_the_same_documents(slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "crawl.warc.gz").write_bytes(b"".join(archive(20, compressed=True)))
    config = CurationConfig()
    config.gopher.min_words = 5
    config.c4.min_sentences = config.boilerplate_lines.pages = config.fineweb.duplicate_line_characters = None
    config.near_duplicates.bands = 0
    executor = ExecutorConfig(kind="slurm", partition="cpu", memory_gb=3, workers=7, sbatch={"account": "nlp"})
    result = run(tmp_path / "web", tmp_path / "work", executor, config)
    local = run(tmp_path / "web", tmp_path / "local", ExecutorConfig(), config)
    assert len(list(local.documents())) == 20
    assert list(result.documents()) == list(local.documents()), (slurm / "sbatch.log").read_text()[-3000:]
    script = (slurm / "sbatch.maquette-filter.sh").read_text()
    for line in ("--array=0-0%7", "--partition=cpu", "--mem-per-cpu=3G", "--account=nlp", "--time=08:00:00"):
        assert f"#SBATCH {line}\n" in script
    arguments = (slurm / "sbatch.arguments").read_text()
    assert "--dependency=afterok:17" in arguments  # the context waits for the first pass, the second for the context
    assert "--dependency=afterok:19" in arguments
    subprocess.run(["bash", "-n", str(slurm / "sbatch.maquette-filter.sh")], check=True)


def test_what_slurm_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crawl.warc").write_bytes(b"".join(archive(2)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match="sbatch"):
        run(tmp_path, tmp_path / "work", ExecutorConfig(kind="slurm", partition="cpu"), CurationConfig())


def test_a_cluster_without_a_partition_is_asked_for_one(slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "crawl.warc").write_bytes(b"".join(archive(2)))
    with pytest.raises(StageError, match="partition"):
        run(tmp_path, tmp_path / "work", ExecutorConfig(kind="slurm"), CurationConfig())


def test_jobs_that_end_with_tasks_undone_are_named(slurm: Path, tmp_path: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/bash\necho Submitted batch job 5\n")
    (tmp_path / "crawl.warc").write_bytes(b"".join(archive(2)))
    with pytest.raises(StageError, match="no more of the jobs 5"):
        run(tmp_path, tmp_path / "work", ExecutorConfig(kind="slurm", partition="cpu"), CurationConfig())


def test_an_error_for_people_comes_through_datatrove(tmp_path: Path) -> None:
    (tmp_path / "crawl.warc").write_bytes(b"".join(archive(2)))
    config = CurationConfig()
    config.domains.examples = str(tmp_path / "missing.jsonl")
    with pytest.raises(StageError, match="missing"):
        run(tmp_path, tmp_path / "work", ExecutorConfig(kind="datatrove"), config)
