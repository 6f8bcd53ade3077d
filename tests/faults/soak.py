"""A long run under memory watch: small trainings and generations, again and again in one process."""

import gc
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.lines import lines

from maquette.artifacts.files import listed


def memory() -> float:
    """MB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def soak(root: Path, minutes: float, say: Callable[[str], None]) -> tuple[int, float]:
    """How many rounds were made, and by how many MB a round the process grew after the first third."""
    from maquette.cli import main
    from maquette.model.generation import generate
    from maquette.model.loading import load_checkpoint
    from maquette.model.sampling import Sampling

    outputs, line = root / "outputs", lines(root)["pretrain"]
    until, sizes = time.monotonic() + 60 * minutes, []
    while time.monotonic() < until or len(sizes) < 4:
        shutil.rmtree(outputs / "runs", ignore_errors=True)
        try:
            main([*line, f"outputs={outputs}"])
        except SystemExit as end:
            if end.code:
                raise RuntimeError("a training failed") from None
        [run] = listed(outputs / "runs")
        model, tokenizer = load_checkpoint(run)
        for seed in range(5):
            generate(model.eval(), [[1, 2, 3]] * 4, tokenizer=tokenizer, sampling=Sampling(), max_tokens=20, seed=seed)
        del model
        gc.collect()
        sizes.append(memory())
        say(f"  round {len(sizes)}: {sizes[-1]:.0f} MB")
    later = sizes[len(sizes) // 3 :]
    return len(sizes), (later[-1] - later[0]) / max(1, len(later) - 1)
