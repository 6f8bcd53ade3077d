"""`maquette export`: a run as a Hugging Face folder, to take away."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import atomic_folder, listed
from maquette.artifacts.manifest import digest_of_files
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FINISHED, read_run
from maquette.cli.command_line.model_config import ExportStage
from maquette.model import hf
from maquette.model.loading import find_checkpoint, load_checkpoint, load_reward_model, model_folder
from maquette.text import Tokenizer


def run(config: ExportStage) -> Path:
    """Checks the run's model by loading it, and copies its folder. Returns where it now lies.

    Raises `ConfigError` where something stands there already, unless it is an older export and `force` is set.
    """
    checkpoint = find_checkpoint(config.checkpoint, config.outputs)
    source = model_folder(checkpoint)
    target = Path(config.to) if config.to is not None else Path(config.outputs) / "export" / checkpoint.name
    hf.require_replaceable(target)
    if listed(target) and not config.force:
        if digest_of_files(source, "**/*") == digest_of_files(target, "**/*"):
            say(f"{target}: up to date")
            return target
        raise ConfigError(f"{target} holds another model.", "Choose another folder with to=, or set force=true.")
    load: Callable[[Path], tuple[Any, Tokenizer]] = load_checkpoint
    if scalar := hf.is_scalar(hf.read_config(source)):
        load = load_reward_model
    model, tokenizer = load(source)
    with atomic_folder(target, hf.is_export) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    record = read_run(checkpoint)
    status = FINISHED if record is None else record["status"]
    say(
        f"{checkpoint.name} -> {target}"
        + ("" if status == FINISHED else f" (the run is {status}: its latest checkpoint)")
    )
    for limit in hf.limits(model.config, tokenizer, scalar=scalar):
        say(f"warning: {limit}")
    return target
