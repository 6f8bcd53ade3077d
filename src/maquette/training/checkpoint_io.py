"""Checkpoints on disk: written whole or not at all, checked before use, the newest good one found by its step.

`checkpoints/step-00000123.ckpt` is Lightning's (model, optimiser, schedule, loops, position in the data, random
numbers); `step-00000123.json` beside it has its size and SHA-256, and is written after it: without it a checkpoint does
not count. Any other checkpoint, such as `ModelCheckpoint`'s, is written in the same way. Of sharded weights it is a
folder of that name (sharded_checkpoint.py), with sizes and digests of each file; one process reads it too.
"""

import pickle
import random
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file, file_digest, listed, read_json, write_json
from maquette.artifacts.reading import load_table, reading, short
from maquette.data.process_group import ProcessGroup, agree, of_all_processes

FORMAT = 4
"""What a checkpoint's contents are laid out as; one of another layout is refused by name, never half understood."""

_NAME = re.compile(r"step-(\d{8,})\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """How Lightning writes and reads a checkpoint: flushed to disk, renamed and sealed; read without running code from
    it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if Path(path).is_dir():  # of sharded weights
            self.remove_checkpoint(path)
        with atomic_file(path) as temporary:
            torch.save(checkpoint, temporary)
        seal(Path(path), int(checkpoint.get("global_step", 0)))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).with_suffix(".json").unlink(missing_ok=True)
        super().remove_checkpoint(path)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = lambda storage, location: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path).is_dir():
            from maquette.training.sharded_checkpoint import read_whole

            return read_whole(Path(path))
        with reading(path, hint="Remove it: the run resumes from the checkpoint before it."):
            try:
                return torch.load(path, map_location=map_location, weights_only=True)
            except (RuntimeError, pickle.UnpicklingError) as error:
                raise ValueError(short(error)) from None


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """The weights of a checkpoint; those of a folder are read one by one, when they are asked for."""
    if path.is_dir():
        from maquette.training.sharded_checkpoint import StoredState

        return StoredState(path)
    state: dict[str, torch.Tensor] = AtomicCheckpointIO().load_checkpoint(path, "cpu")["state_dict"]
    return state


class CheckpointFolder:
    """The checkpoints of one run; `keep` of the newest stay, and those of the steps `kept`."""

    def __init__(self, folder: Path | str, *, keep: int = 2, protected: Collection[int] = ()) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.protected = frozenset(protected)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.ckpt"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that were written whole, rising."""
        matches = (_NAME.fullmatch(path.name) for path in listed(self.folder, "step-*.ckpt"))
        steps = sorted(int(match[1]) for match in matches if match)
        return [step for step in steps if self._seal(step).exists()]

    def prune(self) -> None:
        """Removes the checkpoints that are no longer kept."""
        for old in [step for step in self.steps()[: -self.keep] if step not in self.protected]:
            self._seal(old).unlink(missing_ok=True)
            _remove(self.path(old))
        for path in listed(self.folder, "step-*.ckpt"):  # whole, but killed before its seal
            if not path.with_suffix(".json").exists():
                _remove(path)

    def newest(self, warn: Callable[[str], None], group: ProcessGroup | None = None) -> tuple[int, Path] | None:
        """Step and path of the newest checkpoint whose bytes are what they were; damaged ones are named to `warn`, and
        count no longer. All processes of `group` call it: each reads a part of the files, and all get the same.

        Raises `StageError` for one of another layout."""
        group = group or ProcessGroup()
        for step in reversed(agree(self.steps()) if group.size > 1 else self.steps()):
            damaged = self._damaged(step, group)
            if damaged is None:
                self._refuse_another_format(step)
                return step, self.path(step)
            if group.is_first:
                warn(
                    f"warning: {damaged} is damaged: its bytes do not match their checksum. "
                    "Trying the checkpoint before it."
                )
                self._seal(step).unlink(missing_ok=True)
        return None

    def _damaged(self, step: int, group: ProcessGroup) -> Path | None:
        """The first file that is not what the seal says. Where as many processes read a checkpoint as have written it,
        each checks the file that it is going to read."""
        path, seal = self.path(step), read_json(self._seal(step))
        if group.size > 1:
            seal = agree(seal)
        try:
            shards = seal.get("files")
            files = [(path, seal)] if shards is None else [(path / name, facts) for name, facts in shards.items()]
            bad = [file for file, facts in files[group.rank :: group.size] if not _is_good(file, facts)]
        except (LookupError, TypeError, AttributeError):
            bad = [path]
        return next((one for part in of_all_processes(bad) for one in part), None)

    def _refuse_another_format(self, step: int) -> None:
        version = load_table(self._seal(step)).get("format", 1)
        if version != FORMAT:
            raise StageError(
                f"{self.path(step)} is laid out as format {version} and this version of Maquette reads {FORMAT}: "
                "resume with the version that began the run, or train it again with force=true."
            )

    def _seal(self, step: int) -> Path:
        return self.path(step).with_suffix(".json")


def _is_good(file: Path, facts: dict[str, Any]) -> bool:
    try:
        return file.stat().st_size == facts["bytes"] and file_digest(file) == facts["sha256"]
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def seal(path: Path, step: int, files: dict[str, dict[str, Any]] | None = None) -> None:
    """Declares the checkpoint at `path` good. `files`: of a folder `bytes` and `sha256` of each file."""
    facts: dict[str, Any] = {"files": files}
    if files is None:
        facts = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    write_json(path.with_suffix(".json"), {"format": FORMAT, **facts, "step": step})


def capture_random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and PyTorch's generators, on the processor and on this process's GPU, as plain
    values that a checkpoint can hold."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, list(words), gauss],
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what `capture_random_state` took."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
