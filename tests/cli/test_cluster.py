"""docs/cluster.md: its batch script and its torchrun line, typed in with a small run on two gloo processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maquette.training import read_history, read_record
from support.small_runs import write_documents

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")

SRUN = """#!{python}
# Slurm's srun on one machine: a task for each of the machines and places that the variables name.
import os, subprocess, sys

arguments = sys.argv[1:]
while arguments[0].startswith("-"):
    arguments.pop(0)
nodes, each = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = []
for rank in range(nodes * each):
    place = dict(
        SLURM_PROCID=rank, SLURM_LOCALID=rank % each, SLURM_NODEID=rank // each, SLURM_NTASKS=nodes * each,
        SLURM_STEP_NUM_TASKS=nodes * each, SLURM_NODELIST="localhost",
    )
    with open(f"task-{{rank}}.log", "w") as log:
        environment = dict(os.environ) | {{name: str(value) for name, value in place.items()}}
        tasks.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log))
sys.exit(max(task.wait() for task in tasks))
"""

PROGRAMS = {
    "srun": SRUN,
    "scontrol": '#!/bin/sh\necho "$@" >> requeued\n',
    "maquette": '#!/bin/sh\nexec {python} -m maquette "$@"\n',
    "torchrun": '#!/bin/sh\nexec {python} -m torch.distributed.run "$@"\n',
}

WARNING = '''"""Slurm's warning that the time is nearly up, to the last task, after the fourth step."""
import os
import signal

from lightning.pytorch import Callback


class TimeIsNearlyUp(Callback):
    changes_training = False

    def on_train_batch_end(self, trainer, *arguments):
        if "SLURM_PROCID" in os.environ and trainer.global_step == 4 and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
'''

SMALL = (
    "outputs=outputs source=jsonl source.path=documents corpus.near_duplicates=1.0 corpus.validation=0.1 corpus.test=0 "
    "corpus.workers=1 tokenizer=byte shards.held_out_window=0 shards.workers=1 size=10k tokens=2560 "
    "data.sequence_length=32 data.batch_size_tokens=256 data.validation_tokens=256 callbacks.samples.prompts=[] "
    "num_validations=1 trainer.log_every_n_steps=1 logger=none trainer.accelerator=cpu trainer.devices=1 "
    "+callbacks.warning._target_=warning.TimeIsNearlyUp"
)


def shell_block(text: str) -> str:
    """The page's block that has this text, with a small run in place of a large one."""
    [block] = [one for one in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if text in one]
    block = re.sub(r" trainer\.devices=\d+", "", block).replace("size=1b", SMALL)
    return re.sub(r"--nproc-per-node=\d+", "--nproc-per-node=1", block)


@pytest.mark.slow(reason="two processes and then one that import PyTorch and Lightning")
def test_slurm_stops_and_requeues_what_torchrun_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
        path.chmod(0o755)
    Path("warning.py").write_text(WARNING)
    Path("documents").mkdir()
    write_documents(Path("documents"))
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo",
        "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    batch = subprocess.run(["bash", "-e"], input=shell_block("#SBATCH"), text=True, env=environment, check=False)
    logs = [Path(f"task-{rank}.log").read_text() for rank in range(2)]
    assert batch.returncode == 130, logs
    assert Path("requeued").read_text() == "requeue 7\n"
    # Only the first process makes data and speaks of it.
    assert "training tokens" in logs[0] and "stopped after step 4 of 10" in logs[0]
    assert [line for line in logs[1].splitlines() if "maquette" in line or "tokens" in line] == []
    [folder] = Path("outputs/runs").glob("[!.]*")
    record = read_record(folder)
    assert record is not None and (record.status, record.step) == ("interrupted", 4)

    environment = {name: value for name, value in environment.items() if not name.startswith("SLURM_")}
    line = shell_block("--nproc-per-node=4")
    assert subprocess.run(["bash", "-e"], input=line, text=True, env=environment, check=False).returncode == 0
    record = read_record(folder)
    assert record is not None and (record.status, record.step) == ("finished", 10)
    assert [row["step"] for row in read_history(folder / "metrics.jsonl")] == [*range(1, 11)]
